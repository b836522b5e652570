//! Volumes: how full they are, and other sizes for them.

use std::path::Path;
use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    ResizeVolumeRequest, UpdateEphemeralMountsRequest, VolumeStatsRequest,
};
use hyperstart_protocol::csi::{VolumeStatsResponse, VolumeUsage, volume_usage::Unit};

use super::storages;
use crate::error::Result;
use crate::sandbox::Sandbox;
use crate::volumes::Space;

pub async fn update_ephemeral(
    sandbox: Rc<Sandbox>,
    request: UpdateEphemeralMountsRequest,
) -> Result<Empty> {
    sandbox.resize_ephemeral(&storages(request.storages)?)?;
    Ok(Empty::new())
}

pub async fn stats(
    sandbox: Rc<Sandbox>,
    request: VolumeStatsRequest,
) -> Result<VolumeStatsResponse> {
    let usage = sandbox.volume_usage(Path::new(&request.volume_guest_path)).await?;
    let mut answer = VolumeStatsResponse::new();
    answer.usage = vec![space(Unit::BYTES, usage.bytes), space(Unit::INODES, usage.inodes)];
    answer.volume_condition.mut_or_insert_default().message = "OK".to_owned();
    Ok(answer)
}

fn space(unit: Unit, space: Space) -> VolumeUsage {
    let mut wire = VolumeUsage::new();
    wire.unit = unit.into();
    wire.total = space.total;
    wire.used = space.used;
    wire.available = space.available;
    wire
}

pub async fn resize(sandbox: Rc<Sandbox>, request: ResizeVolumeRequest) -> Result<Empty> {
    sandbox.resize_volume(Path::new(&request.volume_guest_path), request.size).await?;
    Ok(Empty::new())
}
