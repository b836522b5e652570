//! The sandbox's network: what the host declares of it, told to the kernel by rtnetlink(7).
//!
//! ```text
//! declared before ─┐
//! declared by this request ─┼─> what to take away, what to add ──> all of it, or (undone) what was before
//! what the kernel has ──────┘
//! ```
//! One request at a time: each reads what is there, changes it, and reads it again for its answer. What the host never
//! declared (link-local addresses, the kernel's routes, a container's own) is not touched.

mod address;
mod changes;
mod cidr;
mod counters;
mod interface;
mod link;
mod message;
mod neighbour;
mod netlink;
mod route;
mod routes;

use std::time::Duration;

use tokio::sync::Mutex;

pub use cidr::{Cidr, Mac, hardware_text, parse_prefix};
pub use counters::{Counters, counters, counters_of};
pub use interface::{Interface, InterfaceSpec};
pub use neighbour::Neighbour;
pub use route::Route;

use crate::error::{Code, Error, Result};
use crate::uevent::Uevents;
use changes::Changes;
use link::Link;
use netlink::Netlink;
use route::Entry;

const ADDRESSES_MAX: usize = 256;
const ROUTES_MAX: usize = 1024;
const NEIGHBOURS_MAX: usize = 1024;

#[derive(Default)]
pub struct Network(Mutex<State>);

#[derive(Default)]
struct State {
    /// Opened by the first request: a guest may have no network.
    netlink: Option<Netlink>,
    addresses: Vec<(u32, Vec<Cidr>)>,
    routes: Vec<Entry>,
}

impl Network {
    /// Makes an interface what `spec` says; the device may be on its way for `deadline`.
    pub async fn update_interface(
        &self,
        spec: InterfaceSpec,
        uevents: &Uevents,
        deadline: Duration,
    ) -> Result<Interface> {
        bound("addresses", spec.addresses.len(), ADDRESSES_MAX)?;
        spec.check()?;
        let index = spec.find(uevents, deadline).await?; // others may go on meanwhile
        let mut state = self.0.lock().await;
        let State { netlink, addresses, .. } = &mut *state;
        let netlink = opened(netlink)?;
        let links = link::links(netlink).await?;
        addresses.retain(|(index, _)| links.iter().any(|link| link.index == *index));
        let declared = addresses.iter().find(|(of, _)| *of == index);
        let declared = declared.map(|(_, declared)| declared.clone()).unwrap_or_default();
        let mut changes = Changes::new(netlink);
        let applied = interface::apply(&mut changes, &spec, index, &links, &declared).await;
        changes.settle(applied).await?;
        addresses.retain(|(of, _)| *of != index);
        addresses.push((index, spec.addresses));
        let all = interfaces(netlink).await?;
        let gone = || Error::new(Code::NotFound, format!("interface {index}: {}", link::NOT_FOUND));
        all.into_iter().find(|interface| interface.link.index == index).ok_or_else(gone)
    }

    pub async fn interfaces(&self) -> Result<Vec<Interface>> {
        let mut state = self.0.lock().await;
        interfaces(opened(&mut state.netlink)?).await
    }

    /// Makes `routes` those that the host declares, and gives all that there are then.
    pub async fn update_routes(&self, routes: Vec<Route>) -> Result<Vec<Route>> {
        bound("routes", routes.len(), ROUTES_MAX)?;
        let mut state = self.0.lock().await;
        let State { netlink, routes: declared, .. } = &mut *state;
        let netlink = opened(netlink)?;
        let links = link::links(netlink).await?;
        let wanted = routes::resolve(routes, &links)?;
        let mut changes = Changes::new(netlink);
        let applied = routes::apply(&mut changes, declared, &wanted, &links).await;
        changes.settle(applied).await?;
        *declared = wanted;
        all_routes(netlink, &links).await
    }

    pub async fn routes(&self) -> Result<Vec<Route>> {
        let mut state = self.0.lock().await;
        let netlink = opened(&mut state.netlink)?;
        let links = link::links(netlink).await?;
        all_routes(netlink, &links).await
    }

    pub async fn add_neighbours(&self, neighbours: &[Neighbour]) -> Result<()> {
        bound("neighbours", neighbours.len(), NEIGHBOURS_MAX)?;
        let mut state = self.0.lock().await;
        let netlink = opened(&mut state.netlink)?;
        let links = link::links(netlink).await?;
        let mut changes = Changes::new(netlink);
        let applied = neighbour::apply(&mut changes, neighbours, &links).await;
        changes.settle(applied).await
    }
}

fn opened(netlink: &mut Option<Netlink>) -> Result<&mut Netlink> {
    if netlink.is_none() {
        *netlink = Some(Netlink::open()?);
    }
    netlink.as_mut().ok_or_else(|| Error::new(Code::Internal, "no rtnetlink socket"))
}

async fn interfaces(netlink: &mut Netlink) -> Result<Vec<Interface>> {
    let links = link::links(netlink).await?;
    let addresses = address::addresses(netlink).await?;
    let of = |link: Link| {
        let own = addresses.iter().filter(|assigned| assigned.index == link.index);
        Interface { addresses: own.map(|assigned| assigned.cidr).collect(), link }
    };
    Ok(links.into_iter().map(of).collect())
}

async fn all_routes(netlink: &mut Netlink, links: &[Link]) -> Result<Vec<Route>> {
    let entries = route::routes(netlink, links).await?;
    Ok(entries.into_iter().map(|entry| entry.route).collect())
}

fn bound(what: &str, count: usize, most: usize) -> Result<()> {
    if count > most {
        let message = format!("{count} {what}: at most {most}");
        return Err(Error::new(Code::ResourceExhausted, message));
    }
    Ok(())
}
