//! The routes that the host declares, all at once: those that it declared before and does not declare again go, those
//! that are new come, and all that it never declared stays.
//!
//! A gateway must be reached by a route that is there already, so those without one are added first, whatever the
//! order in the request.

use nix::errno::Errno;

use super::changes::{Change, Changes};
use super::link::{self, Link};
use super::route::{self, Entry, Route};
use crate::error::{Context, Result};

/// What the host declares, each once, of links that are there.
pub fn resolve(routes: Vec<Route>, links: &[Link]) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(routes.len());
    for route in routes {
        route.check()?;
        let link = link::by_name(links, &route.device).context(|| format!("add route {route}"))?;
        let entry = route::entry(route, link);
        if !entries.iter().any(|earlier| earlier.is(&entry)) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Has the kernel go from `declared` to `wanted`.
pub async fn apply(
    changes: &mut Changes<'_>,
    declared: &[Entry],
    wanted: &[Entry],
    links: &[Link],
) -> Result<()> {
    let present = route::routes(changes.netlink(), links).await?;
    let is_left = |old: &&Entry| {
        !wanted.iter().any(|new| new.is(old))
            && present.iter().any(|there| there.is_static() && there.is(old))
    };
    let mut stale: Vec<&Entry> = declared.iter().filter(is_left).collect();
    stale.sort_by_key(|entry| !entry.has_gateway());
    for entry in stale {
        let what = format!("delete route {}", entry.route);
        let (request, inverse) = (route::delete(entry), route::add(entry));
        changes.make(Change { what, request, inverse, settled: Some(Errno::ESRCH) }).await?;
    }
    let is_missing = |new: &&Entry| !present.iter().any(|there| there.does(new));
    let mut missing: Vec<&Entry> = wanted.iter().filter(is_missing).collect();
    missing.sort_by_key(|entry| (entry.has_gateway(), u8::MAX - entry.route.scope));
    for entry in missing {
        let what = format!("add route {}", entry.route);
        let (request, inverse) = (route::add(entry), route::delete(entry));
        changes.make(Change { what, request, inverse, settled: None }).await?;
    }
    Ok(())
}
