//! The sandbox's network: interfaces, routes and neighbours, as the host declares them.
//!
//! What is declared again is made so again; what was declared before and is not any more goes. What the host has never
//! declared (link-local addresses, the kernel's own routes) is not touched, and a request that fails changes nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyperstart_protocol::agent::{
    ARPNeighbors, AddARPNeighborsRequest, ListInterfacesRequest, ListRoutesRequest, Routes,
    UpdateInterfaceRequest, UpdateRoutesRequest,
};
use hyperstart_protocol::types;

use crate::connection::CALL;
use crate::error::{Cause, Code, Error, Result, printable};
use crate::sandbox::Sandbox;

/// rtnetlink(7): RTNH_F_ONLINK, NUD_PERMANENT, NTF_ROUTER.
const ONLINK: u32 = 4;
const PERMANENT: i32 = 0x80;
const ROUTER: i32 = 0x80;

/// More of anything than an answer of a guest's has.
const ANSWER_MAX: usize = 1 << 16;

/// An address and the length of its prefix in bits: `10.0.0.2/24`, or for a destination `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix in bits.
    pub prefix: u8,
}

/// An interface of the sandbox: what it is to be, or what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the guest. If another has it, the two swap theirs. Empty: it keeps its own.
    pub name: String,
    /// Its hardware address, by which it is found: `02:00:00:00:00:01`.
    pub mac: String,
    /// The PCI path by which it is found, such as `05/00`; both are looked at if both are given. Empty: by `mac` alone.
    pub pci_path: String,
    /// The largest packet, in bytes. 0: as it is.
    pub mtu: u32,
    /// IFF_* of netdevice(7). Of these IFF_NOARP, IFF_PROMISC and IFF_ALLMULTI can be set; an interface is always up.
    pub flags: u32,
    /// All that the host wants it to have.
    pub addresses: Vec<Cidr>,
}

/// A route of the sandbox's main table, as ip-route(8) has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads: `0.0.0.0/0` or `::/0` is the default route.
    pub destination: Cidr,
    /// By whom; `None`: what it leads to is on the link.
    pub gateway: Option<IpAddr>,
    /// The name of the interface.
    pub device: String,
    /// The address that packets are sent from.
    pub source: Option<IpAddr>,
    /// RT_SCOPE_* of rtnetlink(7). 0 of a route without a gateway: the link.
    pub scope: u8,
    /// The gateway is on the link even if no route says so.
    pub onlink: bool,
    /// The largest packet, in bytes. 0: that of the interface.
    pub mtu: u32,
}

/// A machine whose hardware address is known for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// The name of the interface that it is behind.
    pub device: String,
    /// Its hardware address.
    pub mac: String,
    /// It forwards packets; known of IPv6's neighbours.
    pub router: bool,
}

impl Route {
    /// To `destination` by way of `gateway`, or of the link alone.
    pub fn new(destination: Cidr, gateway: Option<IpAddr>, device: &str) -> Self {
        let device = device.to_owned();
        Self { destination, gateway, device, source: None, scope: 0, onlink: false, mtu: 0 }
    }
}

impl Sandbox {
    /// Makes an interface what `interface` says, once its device is there, and answers what it is then. It keeps those of
    /// its addresses that the host has never declared.
    ///
    /// # Errors
    /// [`Code::NotFound`]: there is no such device, and none has come while the guest waited. [`Code::InvalidArgument`]:
    /// what cannot be, such as an address that is named twice.
    pub async fn update_interface(&self, interface: &Interface) -> Result<Interface> {
        const OPERATION: &str = "update interface";
        let object = if interface.mac.is_empty() { &interface.pci_path } else { &interface.mac };
        let request = UpdateInterfaceRequest {
            interface: Some(interface.to_wire()).into(),
            ..Default::default()
        };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.update_interface(context, &request).await
        });
        let answer = call.await.map_err(Cause::of(OPERATION, object))?;
        Interface::from_wire(OPERATION, answer)
    }

    /// The interfaces of the sandbox.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn list_interfaces(&self) -> Result<Vec<Interface>> {
        const OPERATION: &str = "list interfaces";
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.list_interfaces(context, &ListInterfacesRequest::new()).await
        });
        let answer = call.await.map_err(Cause::of(OPERATION, ""))?.Interfaces;
        bound(OPERATION, answer.len())?;
        answer.into_iter().map(|wire| Interface::from_wire(OPERATION, wire)).collect()
    }

    /// Makes `routes` those that the host declares, in whatever order they are, and answers all that there are then.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such device. [`Code::FailedPrecondition`]: a gateway that no route leads to.
    /// [`Code::InvalidArgument`]: what cannot be. The message names the route; all routes are then as they were before.
    pub async fn update_routes(&self, routes: &[Route]) -> Result<Vec<Route>> {
        const OPERATION: &str = "update routes";
        let routes =
            Routes { Routes: routes.iter().map(Route::to_wire).collect(), ..Default::default() };
        let request = UpdateRoutesRequest { routes: Some(routes).into(), ..Default::default() };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.update_routes(context, &request).await
        });
        routes_of(OPERATION, call.await.map_err(Cause::of(OPERATION, ""))?)
    }

    /// The routes of the sandbox's main table.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn list_routes(&self) -> Result<Vec<Route>> {
        const OPERATION: &str = "list routes";
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.list_routes(context, &ListRoutesRequest::new()).await
        });
        routes_of(OPERATION, call.await.map_err(Cause::of(OPERATION, ""))?)
    }

    /// Tells the guest hardware addresses that it need not ask for.
    ///
    /// # Errors
    /// [`Code::NotFound`]: no such device. [`Code::InvalidArgument`]: an address that is not one machine's.
    pub async fn add_arp_neighbors(&self, neighbours: &[Neighbour]) -> Result<()> {
        let neighbors = ARPNeighbors {
            ARPNeighbors: neighbours.iter().map(Neighbour::to_wire).collect(),
            ..Default::default()
        };
        let request =
            AddARPNeighborsRequest { neighbors: Some(neighbors).into(), ..Default::default() };
        let call = self.connection().agent(CALL, |agent, context| async move {
            agent.add_arp_neighbors(context, &request).await
        });
        call.await.map_err(Cause::of("add neighbours", ""))?;
        Ok(())
    }
}

impl Interface {
    fn to_wire(&self) -> types::Interface {
        types::Interface {
            device: self.name.clone(),
            name: self.name.clone(),
            IPAddresses: self.addresses.iter().map(|cidr| cidr.to_wire()).collect(),
            mtu: self.mtu.into(),
            hwAddr: self.mac.clone(),
            devicePath: self.pci_path.clone(),
            raw_flags: self.flags,
            ..Default::default()
        }
    }

    fn from_wire(operation: &'static str, wire: types::Interface) -> Result<Self> {
        bound(operation, wire.IPAddresses.len())?;
        let nonsense = |what: String| Error::nonsense(operation, "", what);
        let addresses = wire.IPAddresses.iter().map(|address| {
            let text = format!("{}/{}", address.address, address.mask);
            text.parse().map_err(|_| nonsense(format!("address {text:?}")))
        });
        Ok(Self {
            name: printable(&wire.name),
            mac: printable(&wire.hwAddr),
            pci_path: printable(&wire.devicePath),
            mtu: u32::try_from(wire.mtu).map_err(|_| nonsense(format!("MTU {}", wire.mtu)))?,
            flags: wire.raw_flags,
            addresses: addresses.collect::<Result<_>>()?,
        })
    }
}

impl Route {
    fn to_wire(&self) -> types::Route {
        let text = |address: Option<IpAddr>| address.map(|it| it.to_string()).unwrap_or_default();
        types::Route {
            dest: self.destination.to_string(),
            gateway: text(self.gateway),
            device: self.device.clone(),
            source: text(self.source),
            scope: self.scope.into(),
            family: family(self.destination.address).into(),
            flags: if self.onlink { ONLINK } else { 0 },
            mtu: self.mtu,
            ..Default::default()
        }
    }

    /// The default route has no destination.
    fn from_wire(wire: types::Route) -> Option<Self> {
        let optional = |text: &str| match text {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        let destination = match (wire.dest.as_str(), wire.family.enum_value().ok()?) {
            ("", types::IPFamily::v4) => "0.0.0.0/0",
            ("", types::IPFamily::v6) => "::/0",
            (text, _) => text,
        };
        Some(Self {
            destination: destination.parse().ok()?,
            gateway: optional(&wire.gateway)?,
            device: printable(&wire.device),
            source: optional(&wire.source)?,
            scope: u8::try_from(wire.scope).ok()?,
            onlink: wire.flags & ONLINK != 0,
            mtu: wire.mtu,
        })
    }
}

impl Neighbour {
    fn to_wire(&self) -> types::ARPNeighbor {
        let to = types::IPAddress {
            family: family(self.address).into(),
            address: self.address.to_string(),
            ..Default::default()
        };
        types::ARPNeighbor {
            toIPAddress: Some(to).into(),
            device: self.device.clone(),
            lladdr: self.mac.clone(),
            state: PERMANENT,
            flags: if self.router { ROUTER } else { 0 },
            ..Default::default()
        }
    }
}

impl Cidr {
    fn to_wire(self) -> types::IPAddress {
        types::IPAddress {
            family: family(self.address).into(),
            address: self.address.to_string(),
            mask: self.prefix.to_string(),
            ..Default::default()
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    /// `ADDRESS/PREFIX`, or an address alone, whose prefix is all of it.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let cause = "not an address such as \"10.0.0.2/24\"";
            Error::new(Code::InvalidArgument, "read address", format_args!("{text:?}"), cause)
        };
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            "" if !text.contains('/') => most,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| bad())?
            }
            _ => return Err(bad()),
        };
        if prefix > most { Err(bad()) } else { Ok(Self { address, prefix }) }
    }
}

fn family(address: IpAddr) -> types::IPFamily {
    if address.is_ipv4() { types::IPFamily::v4 } else { types::IPFamily::v6 }
}

fn routes_of(operation: &'static str, answer: Routes) -> Result<Vec<Route>> {
    bound(operation, answer.Routes.len())?;
    let route = |wire: types::Route| {
        let dest = printable(&wire.dest);
        Route::from_wire(wire)
            .ok_or_else(|| Error::nonsense(operation, "", format_args!("route to {dest:?}")))
    };
    answer.Routes.into_iter().map(route).collect()
}

fn bound(operation: &'static str, count: usize) -> Result<()> {
    if count > ANSWER_MAX {
        return Err(Error::nonsense(operation, "", format_args!("{count} entries")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["10.0.0.2/24", "::/0", "2001:db8::1/64", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!("fe80::1".parse::<Cidr>().unwrap().prefix, 128);
        for bad in ["", "/", "10.0.0.2/", "10.0.0.2/33", "::/129", "10.0.0.2/+8", "eth0"] {
            assert_eq!(bad.parse::<Cidr>().unwrap_err().code(), Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn a_route_comes_back_as_it_went() {
        let mut route = Route::new("10.0.0.0/8".parse().unwrap(), None, "eth0");
        route.scope = 253;
        assert_eq!(Route::from_wire(route.to_wire()), Some(route));
        let gateway = Some("fe80::1".parse().unwrap());
        let mut route = Route::new("::/0".parse().unwrap(), gateway, "eth0");
        (route.onlink, route.mtu) = (true, 1400);
        assert_eq!(Route::from_wire(route.to_wire()), Some(route.clone()));
        let mut wire = route.to_wire();
        wire.dest.clear();
        assert_eq!(Route::from_wire(wire.clone()), Some(route), "as a guest writes it");
        wire.gateway = "x".to_owned();
        assert_eq!(Route::from_wire(wire), None);
    }

    #[test]
    fn an_interface_comes_back_as_it_went() {
        let interface = Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            pci_path: "05/00".into(),
            mtu: 1400,
            flags: 0x80,
            addresses: vec!["10.0.0.2/24".parse().unwrap(), "2001:db8::2/64".parse().unwrap()],
        };
        let mut wire = interface.to_wire();
        assert_eq!(wire.IPAddresses[1].family.enum_value(), Ok(types::IPFamily::v6));
        assert_eq!(Interface::from_wire("x", wire.clone()).unwrap(), interface);
        wire.IPAddresses[0].mask = "33".into();
        let err = Interface::from_wire("update interface", wire).unwrap_err();
        assert_eq!(err.code(), Code::Internal);
        assert!(err.to_string().contains("address \"10.0.0.2/33\""), "{err}");
    }
}
