//! What no library sends: broken frames, wrong messages, noise. Each is an error on that call or that connection alone.

use harness::raw::{REQUEST, RESPONSE, Reply, bytes_field, frame, header, number_field, request};
use harness::{Run, Vm, VmConfig, guest};
use hyperstart::Code;
use hyperstart_vmm::TransportKind;

const AGENT: &str = "grpc.AgentService";
const HEALTH: &str = "grpc.Health";
const GUEST: &str = "hyperstart.v1.Guest";
/// How many connections of noise are sent, and how many frames on each.
const NOISY_CONNECTIONS: usize = 200;
const NOISE_FRAMES: usize = 50;

/// A guest over vsock, where bytes reach PID 1 as they are.
fn boot() -> Vm {
    let transport = Some(TransportKind::VhostUserVsock);
    Vm::boot(&VmConfig { transport, ..VmConfig::default() })
}

/// The guest serves, by a connection of its own and by a container that runs.
fn assert_serves(vm: &Vm, name: &str) {
    vm.run("check", vm.sandbox().check()).expect("the guest serves");
    assert_eq!(vm.finish(name, &Run::probe(["exit", "3"])).code, 3);
}

/// Every kind of broken frame costs its sender the connection, or an error, and nobody else anything.
#[test]
fn broken_frames_hurt_their_connection_only() {
    let vm = boot();
    let call = request(AGENT, "GetGuestDetails", b"");
    let broken: [(&str, Vec<u8>); 9] = [
        ("nothing", Vec::new()),
        ("half a header", header(10, 1, REQUEST, 0)[..5].to_vec()),
        ("half a frame", frame(1, REQUEST, 0, &call)[..20].to_vec()),
        ("a length of 2^32-1", header(u32::MAX, 1, REQUEST, 0).to_vec()),
        ("a length of 2^31", header(1 << 31, 1, REQUEST, 0).to_vec()),
        ("a length of 4 MiB and 1", header((4 << 20) + 1, 1, REQUEST, 0).to_vec()),
        ("a length of 0", frame(1, REQUEST, 0, b"")),
        ("an even stream id", frame(2, REQUEST, 0, &call)),
        ("an unknown type", frame(1, 99, 0xff, &call)),
    ];
    for (index, (what, bytes)) in broken.into_iter().enumerate() {
        let mut raw = vm.raw();
        raw.send(&bytes);
        drop(raw);
        let mut next = vm.raw();
        let answer = next.call(1, HEALTH, "Check", b"");
        assert!(answer.code == 0, "after {what} ({index}): {answer:?}");
    }
    assert_serves(&vm, "web");
    vm.shutdown();
}

/// A frame that is announced and not sent takes no memory for what does not come.
#[test]
fn announced_frames_take_no_memory() {
    let vm = boot();
    let before = vm.init_memory().number("Anonymous");
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut raw = vm.raw();
        raw.send(&header(4 << 20, 1, REQUEST, 0));
        waiting.push(raw);
    }
    let during = vm.init_memory().number("Anonymous");
    assert!(
        during < before + 1024,
        "16 frames of 4 MiB announced: {before} KiB grew to {during} KiB"
    );
    drop(waiting);
    assert_serves(&vm, "web");
    vm.shutdown();
}

/// Unknown services and methods, and payloads that are no message, are typed errors on that call; the connection stays.
#[test]
fn wrong_requests_are_typed_errors() {
    let vm = boot();
    let mut raw = vm.raw();
    let mut stream_id = 1;
    let mut call = |service: &str, method: &str, payload: &[u8]| -> Reply {
        stream_id += 2;
        raw.call(stream_id, service, method, payload)
    };
    for (service, method) in [("grpc.NoSuchService", "Check"), (AGENT, "NoSuchMethod"), ("", "")] {
        let reply = call(service, method, b"");
        let known = reply.is(Code::Unimplemented) || reply.is(Code::InvalidArgument); // ttrpc's own for a service
        assert!(known && !reply.message.is_empty(), "{service}/{method}: {reply:?}");
    }
    let wrong_types = [
        number_field(1, 7),
        bytes_field(1, &[0xff, 0xfe]),
        vec![0xff; 64],
        vec![0x0a, 0xff, 0xff, 0x7f],
    ];
    for payload in wrong_types {
        for method in
            ["StartContainer", "CreateContainer", "WaitProcess", "ReadStdout", "SignalProcess"]
        {
            let reply = call(AGENT, method, &payload);
            assert!(reply.is(Code::InvalidArgument), "{method} {payload:?}: {reply:?}");
        }
    }
    assert_eq!(call(HEALTH, "Check", b"").code, 0);
    assert_serves(&vm, "web");
    vm.shutdown();
}

/// Unknown and malformed ids are errors on that call, also where they lead up a tree.
#[test]
fn wrong_ids_are_typed_errors() {
    let vm = boot();
    let mut raw = vm.raw();
    for (index, id) in
        ["", ".", "..", "../../etc", "a/b", "a\0b", &"x".repeat(10_000)].into_iter().enumerate()
    {
        let payload = bytes_field(1, id.as_bytes());
        for (offset, method) in
            ["StartContainer", "RemoveContainer", "WaitProcess", "SignalProcess"]
                .into_iter()
                .enumerate()
        {
            let stream_id = u32::try_from(1 + 2 * (4 * index + offset)).unwrap();
            let reply = raw.call(stream_id, AGENT, method, &payload);
            assert!(reply.is(Code::InvalidArgument), "{method} {id:?}: {reply:?}");
        }
    }
    assert_serves(&vm, "web");
    vm.shutdown();
}

/// The methods that a face of PID 1's refuses. That it serves all others of the wire is what tests/api-table looks at.
fn refused(face: &str) -> Vec<String> {
    let path = guest::workspace().join("init/src/server").join(face).join("mod.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let list = text.split("const NOT_SERVED").nth(1).unwrap_or_default();
    let list = list.split("];").next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A call that is not served says so by its name, whatever is sent with it.
#[test]
fn what_is_not_served_says_so_by_name() {
    let vm = boot();
    let mut raw = vm.raw();
    let faces = [(AGENT, refused("kata")), (GUEST, refused("guest"))];
    assert!(faces[0].1.contains(&"SetPolicy".to_owned()), "{faces:?}");
    let methods = faces.iter().flat_map(|(service, methods)| {
        methods.iter().map(move |method| (*service, method.as_str()))
    });
    for (index, (service, method)) in methods.enumerate() {
        let stream_id = u32::try_from(2 * index + 1).unwrap();
        let reply = raw.call(stream_id, service, method, &bytes_field(1, b"web"));
        assert!(
            reply.is(Code::Unimplemented) && reply.message.contains(method),
            "{method}: {reply:?}"
        );
    }
    assert_serves(&vm, "web");
    vm.shutdown();
}

/// Ten thousand frames of noise leave a guest that runs containers, in as much memory as before, but for the 64 KiB of
/// its log, which a refused request is a line of.
#[test]
fn noise_is_survived() {
    let vm = boot();
    noise(&vm, &mut Noise(1), 20); // what the first noise warms up is no growth
    assert_serves(&vm, "before");
    let before = vm.init_memory();
    let mut seed = Noise(0x5eed);
    noise(&vm, &mut seed, NOISY_CONNECTIONS);
    assert_serves(&vm, "after");
    let after = vm.init_memory();
    let [grown_from, grown_to] = [&before, &after].map(|memory| memory.number("Anonymous"));
    assert!(grown_to <= grown_from + 64 + 64, "{grown_from} KiB grew to {grown_to} KiB");
    assert_eq!(after.number("descriptors"), before.number("descriptors"));
    vm.shutdown();
}

/// The same noise on the shared serial line ends the noisy client's connections; the line itself stays in step.
#[test]
fn noise_on_serial_is_survived() {
    let transport = Some(TransportKind::Serial);
    let vm = Vm::boot(&VmConfig { transport, ..VmConfig::default() });
    noise(&vm, &mut Noise(0x5eed), 20);
    assert_serves(&vm, "web");
    vm.shutdown();
}

/// Sixty-four connections cost no thread, and are closed again.
#[test]
fn many_connections_cost_no_thread() {
    let vm = boot();
    let before = vm.init_memory();
    let many: Vec<_> = (0..64).map(|_| vm.connect()).collect();
    let during = vm.init_memory();
    assert_eq!(during.number("threads"), 1);
    assert!(during.number("descriptors") >= before.number("descriptors") + 64);
    drop(many);
    assert_serves(&vm, "web");
    assert_eq!(vm.init_memory().number("descriptors"), before.number("descriptors"));
    vm.shutdown();
}

/// The agent's port is the host's alone: a container that connects to it by any address of the guest is not answered,
/// and by default has no such socket at all.
#[test]
fn containers_cannot_reach_the_agent() {
    let vm = boot();
    let ask = Run::probe(["vsock", "1024"]);
    let confined = vm.finish("confined", &ask).facts();
    assert!(confined.below("cid.").iter().all(|(_, answer)| *answer == "1"), "{confined:?}"); // EPERM
    let said = vm.finish_with("web", &ask, |spec| {
        let mut linux = spec.linux().clone().unwrap();
        linux.set_seccomp(None);
        spec.set_linux(Some(linux));
    });
    let said = said.facts();
    for (cid, answer) in said.below("cid.") {
        assert_ne!(answer, "answered", "by CID {cid}");
    }
    assert_eq!(said.below("cid.").len(), 5);
    assert_serves(&vm, "db");
    vm.shutdown();
}

/// Sends frames of noise on so many connections: random bytes, and requests that are almost right.
fn noise(vm: &Vm, noise: &mut Noise, connections: usize) {
    for _ in 0..connections {
        let mut raw = vm.raw();
        let frames: Vec<u8> = (0..NOISE_FRAMES).flat_map(|_| noise.frame()).collect();
        raw.send(&frames);
    }
}

/// xorshift64: the same noise in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = usize::try_from(self.next() % 200).unwrap();
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn frame(&mut self) -> Vec<u8> {
        const METHODS: [&str; 8] = [
            "CreateContainer",
            "StartContainer",
            "ExecProcess",
            "SignalProcess",
            "ReadStdout",
            "WriteStdin",
            "RemoveContainer",
            "CreateSandbox",
        ];
        let payload = self.bytes();
        let stream_id = u32::try_from(self.next() & 0xffff).unwrap();
        match self.next() % 8 {
            0 => payload,
            1 => frame(stream_id, RESPONSE, 0, &payload),
            2 => frame(stream_id, REQUEST, 0, &payload),
            3 => header(u32::try_from(self.next() >> 32).unwrap(), stream_id, REQUEST, 0).to_vec(),
            _ => {
                let method = METHODS[usize::try_from(self.next() % 8).unwrap()];
                frame(stream_id | 1, REQUEST, 0, &request(AGENT, method, &payload))
            }
        }
    }
}

/// Requests that are right but for a byte or two are survived too: they come farther than noise.
#[test]
fn almost_right_requests_are_survived() {
    let mut vm = boot();
    let mut noise = Noise(0xa1305);
    let right =
        [("CreateContainer", create_container("almost")), ("ExecProcess", exec_process("web"))];
    let web = vm.start("web", &Run::probe(["sleep", "600000"]));
    let mut raw = vm.raw();
    for (stream_id, (method, payload)) in [1, 3].into_iter().zip(&right) {
        let reply = raw.call(stream_id, AGENT, method, payload);
        assert_eq!(reply.code, 0, "{method} is not even right: {reply:?}");
    }
    for index in 0..600 {
        let (method, mut payload) = right[index % 2].clone();
        for _ in 0..=noise.next() % 3 {
            let at = usize::try_from(noise.next()).unwrap() % payload.len();
            payload[at] = noise.next().to_le_bytes()[0];
        }
        let stream_id = u32::try_from(2 * index + 5).unwrap();
        raw.call(stream_id, AGENT, method, &payload);
    }
    assert_eq!(vm.init_memory().number("threads"), 1);
    web.kill();
    assert_serves(&vm, "after");
    vm.power_off(); // some of them were right enough to make a container
}

/// `CreateContainerRequest`: container_id 1, OCI 6; its Spec: Version 1, Process 2, Root 3, Mounts 5, Linux 8 (Namespaces 6).
fn create_container(id: &str) -> Vec<u8> {
    let text = |number: u8, text: &str| bytes_field(number, text.as_bytes());
    let mount = [text(1, "/proc"), text(2, "proc"), text(3, "proc"), text(4, "nosuid")].concat();
    let namespaces: Vec<u8> = ["mount", "pid", "ipc", "uts", "cgroup", "network"]
        .iter()
        .flat_map(|kind| bytes_field(6, &text(1, kind)))
        .collect();
    let root = [text(1, "/run/hyperstart/images/probe"), number_field(2, 1)].concat();
    let spec = [
        text(1, "1.0.2"),
        bytes_field(2, &process()),
        bytes_field(3, &root),
        bytes_field(5, &mount),
        bytes_field(8, &namespaces),
    ];
    [text(1, id), bytes_field(6, &spec.concat())].concat()
}

/// `ExecProcessRequest`: container_id 1, exec_id 2, process 4.
fn exec_process(id: &str) -> Vec<u8> {
    [bytes_field(1, id.as_bytes()), bytes_field(2, b"almost"), bytes_field(4, &process())].concat()
}

/// OCI `Process`: User 3, Args 4, Env 5, Cwd 6, Rlimits 8.
fn process() -> Vec<u8> {
    let user = [number_field(1, 1000), number_field(2, 1000)].concat();
    let rlimit =
        [bytes_field(1, b"RLIMIT_NOFILE"), number_field(2, 64), number_field(3, 64)].concat();
    [
        bytes_field(3, &user),
        bytes_field(4, b"/probe"),
        bytes_field(4, b"view"),
        bytes_field(5, b"A=b"),
        bytes_field(6, b"/"),
        bytes_field(8, &rlimit),
    ]
    .concat()
}
