//! A peer of a guest's, on this machine's loopback: QEMU's own network leads there.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;

/// As much as an echo serves before it ends.
const CONNECTIONS: usize = 8;
const BYTES: u64 = 4 << 20;

/// Sends back what each of a few connections says, until their input ends, and gives the port that it listens on.
pub fn echo(address: &str) -> u16 {
    let address: IpAddr = address.parse().expect("an address");
    assert!(address.is_loopback(), "nothing but this machine");
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).expect("listen");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().take(CONNECTIONS) {
            let mut stream = stream.expect("accept");
            let mut said = Vec::new();
            // Whoever is gone early has failed its own test.
            if Read::by_ref(&mut stream).take(BYTES).read_to_end(&mut said).is_ok() {
                drop(stream.write_all(&said));
            }
        }
    });
    port
}
