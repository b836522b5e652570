//! From a registry to a running container, as README's tour does it.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use harness::command::Place;
use harness::guest;

/// The registry of the tour, with an image of three layers in it.
struct Registry {
    address: String,
    process: Child,
}

impl Registry {
    fn start() -> Registry {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = free.to_string();
        let script = guest::workspace().join("scripts/loopback-registry");
        let mut command = Command::new(script);
        let mut process = command.arg(&address).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("busybox:1 is there"), "{line:?}");
        Registry { address, process }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        self.process.wait().unwrap();
    }
}

/// An image is pulled, and runs without its registry: the programs of one layer, the users of another, the file of a third.
#[test]
fn an_image_runs_after_a_pull() {
    let registry = Registry::start();
    let place = Place::new();
    let name = format!("{}/busybox:1", registry.address);
    let digest = place.run(["pull", &name]).ok().to_owned();
    assert!(digest.starts_with("sha256:"), "{digest}");
    drop(registry); // what is pulled is here
    let command = "cat /srv/hello; id -un";
    let said = place.run(["run", "--rm", "--user", "alice", &name, "sh", "-c", command]);
    assert_eq!(said.ok(), "hello from a layer\nalice\n");
    place.assert_nothing_left();
}
