//! The sandbox's network. Families are told as they are, in both directions.

use std::net::IpAddr;
use std::rc::Rc;

use hyperstart_protocol::Empty;
use hyperstart_protocol::agent::{
    AddARPNeighborsRequest, Interfaces, ListInterfacesRequest, ListRoutesRequest, Routes,
    UpdateInterfaceRequest, UpdateRoutesRequest,
};
use hyperstart_protocol::types::{
    ARPNeighbor, IPAddress, IPFamily, Interface as WireInterface, Route as WireRoute,
};

use super::refuse_if;
use crate::error::{Code, Context, Error, Result};
use crate::network::{
    Cidr, Interface, InterfaceSpec, Mac, Neighbour, Route, hardware_text, parse_prefix,
};
use crate::pci::PciPath;
use crate::sandbox::Sandbox;

/// rtnetlink(7): the only flag of a hop that a host sets; the others of the lower byte tell how the hop does.
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_PERVASIVE: u32 = 2;
const NUD_PERMANENT: i32 = 0x80;
const NTF_ROUTER: i32 = 0x80;

pub async fn update_interface(
    sandbox: Rc<Sandbox>,
    request: UpdateInterfaceRequest,
) -> Result<WireInterface> {
    let Some(wire) = request.interface.into_option() else { return Err(missing("interface")) };
    let path = wire.devicePath.clone();
    let spec = interface_spec(wire).context(|| "update interface".to_owned())?;
    let interface = sandbox.update_interface(spec).await?;
    let mut answer = wire_interface(interface);
    answer.devicePath = path;
    Ok(answer)
}

pub async fn list_interfaces(sandbox: Rc<Sandbox>, _: ListInterfacesRequest) -> Result<Interfaces> {
    let mut answer = Interfaces::new();
    answer.Interfaces =
        sandbox.network().interfaces().await?.into_iter().map(wire_interface).collect();
    Ok(answer)
}

pub async fn update_routes(sandbox: Rc<Sandbox>, request: UpdateRoutesRequest) -> Result<Routes> {
    let Some(wire) = request.routes.into_option() else { return Err(missing("routes")) };
    let routes: Result<Vec<Route>> = wire.Routes.into_iter().map(route).collect();
    let routes = routes.context(|| "update routes".to_owned())?;
    Ok(wire_routes(sandbox.network().update_routes(routes).await?))
}

pub async fn list_routes(sandbox: Rc<Sandbox>, _: ListRoutesRequest) -> Result<Routes> {
    Ok(wire_routes(sandbox.network().routes().await?))
}

pub async fn add_neighbours(
    sandbox: Rc<Sandbox>,
    request: AddARPNeighborsRequest,
) -> Result<Empty> {
    let Some(wire) = request.neighbors.into_option() else { return Err(missing("neighbors")) };
    let neighbours: Result<Vec<Neighbour>> = wire.ARPNeighbors.into_iter().map(neighbour).collect();
    let neighbours = neighbours.context(|| "add neighbours".to_owned())?;
    sandbox.network().add_neighbours(&neighbours).await?;
    Ok(Empty::new())
}

/// `device` and `type` tell what the interface is on the host.
fn interface_spec(wire: WireInterface) -> Result<InterfaceSpec> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mac = given(&wire.hwAddr).map(|text| Mac::parse(&text)).transpose();
    let pci_path = given(&wire.devicePath).map(|text| PciPath::parse(&text)).transpose();
    let mtu = u32::try_from(wire.mtu)
        .map_err(|_err| bad(format!("mtu {}: larger than any link's", wire.mtu)))?;
    let addresses: Result<Vec<Cidr>> = wire.IPAddresses.iter().map(interface_address).collect();
    Ok(InterfaceSpec {
        mac: mac.context(|| "hwAddr".to_owned())?,
        pci_path: pci_path.context(|| "devicePath".to_owned())?,
        name: given(&wire.name),
        mtu: (mtu != 0).then_some(mtu),
        flags: wire.raw_flags,
        addresses: addresses.context(|| "IPAddresses".to_owned())?,
    })
}

fn interface_address(wire: &IPAddress) -> Result<Cidr> {
    let prefix = parse_prefix(&wire.mask)
        .ok_or_else(|| bad(format!("mask {:?}: not the length of a prefix", wire.mask)))?;
    Cidr::of_interface(address(wire)?, prefix)
}

/// v4 is also what says nothing of the family: then the address says it.
fn address(wire: &IPAddress) -> Result<IpAddr> {
    let text = &wire.address;
    let address: IpAddr = text.parse().map_err(|_err| bad(format!("{text:?}: not an address")))?;
    check_family(address, wire.family.enum_value())?;
    Ok(address)
}

fn check_family(address: IpAddr, family: Result<IPFamily, i32>) -> Result<()> {
    match family {
        Ok(IPFamily::v4) => Ok(()),
        Ok(IPFamily::v6) if address.is_ipv6() => Ok(()),
        Ok(IPFamily::v6) => Err(bad(format!("{address}: not of family v6"))),
        Err(number) => Err(bad(format!("family {number}: unknown"))),
    }
}

fn route(wire: WireRoute) -> Result<Route> {
    let optional = |text: &str| -> Result<Option<IpAddr>> {
        let parse = || text.parse().map_err(|_err| bad(format!("{text:?}: not an address")));
        if text.is_empty() { Ok(None) } else { parse().map(Some) }
    };
    let gateway = optional(&wire.gateway).context(|| "gateway".to_owned())?;
    let source = optional(&wire.source).context(|| "source".to_owned())?;
    let family = wire.family.enum_value();
    let destination = match wire.dest.as_str() {
        "" | "default"
            if family == Ok(IPFamily::v6) || gateway.is_some_and(|hop| hop.is_ipv6()) =>
        {
            Cidr::parse("::/0")
        }
        "" | "default" => Cidr::parse("0.0.0.0/0"),
        text => Cidr::parse(text),
    };
    let destination = destination.context(|| "dest".to_owned())?;
    check_family(destination.address, family).context(|| "dest".to_owned())?;
    let scope = u8::try_from(wire.scope).map_err(|_err| bad(format!("scope {}", wire.scope)))?;
    refuse_if(wire.flags & RTNH_F_PERVASIVE != 0, "route flag pervasive")?;
    let onlink = wire.flags & RTNH_F_ONLINK != 0;
    Ok(Route { destination, gateway, device: wire.device, source, scope, onlink, mtu: wire.mtu })
}

fn neighbour(wire: ARPNeighbor) -> Result<Neighbour> {
    let Some(to) = wire.toIPAddress.into_option() else { return Err(missing("toIPAddress")) };
    refuse_if(!matches!(wire.state, 0 | NUD_PERMANENT), "a state other than permanent")?;
    refuse_if(wire.flags & !NTF_ROUTER != 0, "flags other than router")?;
    Ok(Neighbour {
        address: address(&to).context(|| "toIPAddress".to_owned())?,
        device: wire.device,
        mac: Mac::parse(&wire.lladdr).context(|| "lladdr".to_owned())?,
        router: wire.flags & NTF_ROUTER != 0,
    })
}

fn wire_interface(interface: Interface) -> WireInterface {
    let Interface { link, addresses } = interface;
    let mut wire = WireInterface::new();
    wire.device.clone_from(&link.name);
    wire.name = link.name;
    wire.IPAddresses = addresses.into_iter().map(wire_address).collect();
    wire.mtu = link.mtu.into();
    wire.hwAddr = hardware_text(&link.hardware);
    wire.raw_flags = link.flags;
    wire
}

fn wire_address(cidr: Cidr) -> IPAddress {
    let mut wire = IPAddress::new();
    wire.family = family(cidr.address).into();
    wire.address = cidr.address.to_string();
    wire.mask = cidr.prefix.to_string();
    wire
}

fn family(address: IpAddr) -> IPFamily {
    if address.is_ipv4() { IPFamily::v4 } else { IPFamily::v6 }
}

/// The default route has no destination.
fn wire_routes(routes: Vec<Route>) -> Routes {
    let wire_route = |route: Route| {
        let text = |address: Option<IpAddr>| address.map(|it| it.to_string()).unwrap_or_default();
        let mut wire = WireRoute::new();
        if route.destination.prefix > 0 {
            wire.dest = route.destination.to_string();
        }
        wire.gateway = text(route.gateway);
        wire.device = route.device;
        wire.source = text(route.source);
        wire.scope = route.scope.into();
        wire.family = family(route.destination.address).into();
        wire.flags = if route.onlink { RTNH_F_ONLINK } else { 0 };
        wire.mtu = route.mtu;
        wire
    };
    let mut answer = Routes::new();
    answer.Routes = routes.into_iter().map(wire_route).collect();
    answer
}

fn missing(field: &str) -> Error {
    bad(format!("{field}: missing"))
}

fn bad(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests;
