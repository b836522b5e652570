//! What a user does with a correct guest: connect, create, run, exec, stream, wait, remove.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

mod fake;

use std::time::Duration;

use fake::Guest;
use hyperstart::{
    Code, ConnectOptions, Container, ContainerId, ContainerOptions, ExecId, Sandbox, SandboxConfig,
    Storage, Transport, spec,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use ttrpc::asynchronous::Server;

const QUICK: ConnectOptions =
    ConnectOptions { deadline: Duration::from_secs(5), attempt: Duration::from_millis(200) };

async fn guest() -> (std::sync::Arc<Guest>, Sandbox, (Server, TempDir)) {
    Guest::connected(QUICK).await
}

async fn web(sandbox: &Sandbox) -> Container {
    let id = ContainerId::new("web").unwrap();
    let image = Storage::image("virtio-pmem", "/dev/pmem1", &ContainerId::new("busybox").unwrap());
    let args = vec!["true".to_owned()];
    let process = spec::default_process(args, vec![], "/", spec::user(""), false);
    let storages = vec![image.clone(), Storage::overlay(&id, &[image])];
    let spec = spec::default_spec(&id, process);
    sandbox
        .create_container(&id, &spec, ContainerOptions { storages, ..Default::default() })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_container_lives_from_create_to_remove() {
    let (guest, sandbox, _server) = guest().await;
    let config = SandboxConfig {
        hostname: "pod".to_owned(),
        dns: vec!["nameserver 10.0.0.1".to_owned()],
        ..Default::default()
    };
    sandbox.create(&config).await.unwrap();
    let web = web(&sandbox).await;
    web.start().await.unwrap();
    web.signal(15).await.unwrap();
    guest.status.send_replace(Some(143));
    assert_eq!(web.wait().await.unwrap().code(), 143);
    web.remove(Duration::from_millis(1500)).await.unwrap();
    sandbox.destroy().await.unwrap();

    let requests = guest.log();
    assert_eq!(
        requests,
        [
            "create sandbox pod [\"nameserver 10.0.0.1\"]",
            "create web web",
            "start web",
            "signal web \"\" 15",
            "wait web web",
            "remove web 2",
            "destroy sandbox",
        ]
    );
    let root = guest.spec.lock().unwrap().take().unwrap().Root.Path.clone();
    let storages = guest.storages.lock().unwrap();
    assert_eq!(root, storages[1].mount_point);
    assert_eq!(storages[0].options, ["ro", "dax=always"]);
    assert_eq!(storages[1].options[0], "lowerdir=/run/hyperstart/images/busybox");
}

#[tokio::test]
async fn an_exec_has_an_id_of_its_own() {
    let (guest, sandbox, _server) = guest().await;
    let container = sandbox.container(ContainerId::new("web").unwrap());
    let args = vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()];
    let process = spec::default_process(args.clone(), vec![], "/tmp", spec::user("nobody"), true);
    let exec = container.exec(ExecId::new("e1").unwrap(), &process).await.unwrap();
    exec.resize(80, 24).await.unwrap();
    exec.signal(2).await.unwrap();
    container.process().signal(9).await.unwrap();
    guest.status.send_replace(Some(0));
    assert!(exec.wait().await.unwrap().success());

    let requests = guest.log();
    assert_eq!(
        requests,
        [
            "exec web e1",
            "resize 80x24",
            "signal web \"e1\" 2",
            "signal web \"web\" 9",
            "wait web e1"
        ]
    );
    let sent = guest.exec.lock().unwrap().take().unwrap();
    assert_eq!((sent.Args, sent.Terminal, sent.Cwd.as_str()), (args, true, "/tmp"));
    assert_eq!(sent.User.Username, "nobody");
}

/// More than one chunk each way, though the guest takes less than what is offered to it at once.
#[tokio::test]
async fn streams_carry_every_byte_in_order() {
    let (guest, sandbox, _server) = guest().await;
    let process = sandbox.container(ContainerId::new("web").unwrap()).process();
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    *guest.stdout.lock().unwrap() = bytes.chunks(10_007).map(<[u8]>::to_vec).collect();

    let mut output = Vec::new();
    process.stdout().read_to_end(&mut output).await.unwrap();
    assert_eq!(output, bytes);
    output.clear();
    process.stderr().read_to_end(&mut output).await.unwrap();
    assert!(output.is_empty());

    let mut stdin = process.stdin();
    stdin.write_all(&bytes).await.unwrap();
    assert_eq!(stdin.write(b"").await.unwrap(), 0);
    stdin.shutdown().await.unwrap();
    assert_eq!(*guest.stdin.lock().unwrap(), bytes);
    assert_eq!(guest.log().last().unwrap(), "close web web");
    let err = stdin.write(b"more").await.unwrap_err();
    assert_eq!(err.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_guest_tells_of_itself() {
    let (_guest, sandbox, _server) = guest().await;
    sandbox.check().await.unwrap();
    assert_eq!(sandbox.version().await.unwrap().agent, "1.2.3");
    let version = sandbox.guest_version().await.unwrap();
    assert_eq!((version.protocol, version.kernel_release.as_str()), ((1, 7), "6.12.0"));
    let details = sandbox.details().await.unwrap();
    assert_eq!((details.version.as_str(), details.init_daemon), ("1.2.3\\u{1b}[31m", true));
    assert_eq!(sandbox.next_oom().await.unwrap().as_str(), "hog");
}

#[tokio::test]
async fn an_error_says_what_failed_on_what_and_why() {
    let (_guest, sandbox, _server) = guest().await;
    let id = ContainerId::new("taken").unwrap();
    let process = spec::default_process(vec![], vec![], "/", spec::user(""), false);
    let spec = spec::default_spec(&id, process);
    let result = sandbox.create_container(&id, &spec, ContainerOptions::default()).await;
    let err = result.err().unwrap();
    assert_eq!((err.code(), err.retryable()), (Code::AlreadyExists, false));
    assert_eq!(err.to_string(), "create container \"taken\": container \"taken\" exists");

    let args = vec!["x".repeat(5 << 20)];
    let process = spec::default_process(args, vec![], "/", spec::user(""), false);
    let err = sandbox.container(id).exec(ExecId::new("e").unwrap(), &process).await.err().unwrap();
    assert_eq!(err.code(), Code::InvalidArgument);
    assert!(
        err.to_string().starts_with("exec in container \"taken\"/\"e\": a request of 524"),
        "{err}"
    );

    // What the fake does not serve: the generated default.
    let err = sandbox.boot_receipt().await.unwrap_err();
    assert_eq!(err.code(), Code::Unimplemented);
    assert!(err.message().contains("BootReceipt"), "{err}");
}

/// An agent that does not say that it reads an extension of the OCI spec would pass over it in silence.
#[tokio::test]
async fn an_extension_is_not_sent_to_an_agent_that_does_not_read_it() {
    let (_guest, sandbox, _server) = guest().await;
    let id = ContainerId::new("c1").unwrap();
    let process = spec::default_process(vec!["true".into()], vec![], "/", spec::user(""), false);
    let mut spec = spec::default_spec(&id, process);
    spec.set_domainname(Some("example.org".to_owned()));
    let err =
        sandbox.create_container(&id, &spec, ContainerOptions::default()).await.err().unwrap();
    assert_eq!(err.code(), Code::Unimplemented);
    assert!(err.message().starts_with("domainname: "), "{err}");
}

#[tokio::test]
async fn a_hybrid_vsock_is_greeted_first() {
    let dir = tempfile::tempdir().unwrap();
    let (guest, path) = (Guest::new(), dir.path().join("vm.sock"));
    let agent = dir.path().join("agent.sock");
    let _server = guest.listen(&agent).await;
    let listener = UnixListener::bind(&path).unwrap();
    let vmm = tokio::spawn(async move {
        let mut host = BufReader::new(listener.accept().await.unwrap().0);
        let mut line = String::new();
        host.read_line(&mut line).await.unwrap();
        assert_eq!(line, "CONNECT 1024\n");
        host.write_all(b"OK 1\n").await.unwrap();
        let mut agent = UnixStream::connect(agent).await.unwrap();
        tokio::io::copy_bidirectional(&mut host, &mut agent).await.unwrap();
    });
    let transport = Transport::Hybrid { path, port: 1024 };
    let sandbox = Sandbox::connect_with(&transport, QUICK).await.unwrap();
    sandbox.check().await.unwrap();
    drop(sandbox);
    vmm.await.unwrap();
}

/// As vhost-device-vsock may do: the connection stands, and carries nothing.
#[tokio::test]
async fn a_stuck_connection_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (guest, path) = (Guest::new(), dir.path().join("vm.sock"));
    let agent = dir.path().join("agent.sock");
    let _server = guest.listen(&agent).await;
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let _stuck = listener.accept().await.unwrap();
        let mut host = listener.accept().await.unwrap().0;
        let mut agent = UnixStream::connect(agent).await.unwrap();
        tokio::io::copy_bidirectional(&mut host, &mut agent).await.unwrap();
    });
    Sandbox::connect_with(&Transport::Unix { path }, QUICK).await.unwrap().check().await.unwrap();
}

#[tokio::test]
async fn a_guest_that_is_not_there_is_unavailable_and_says_why() {
    let transport = Transport::Unix { path: "/nonexistent/agent.sock".into() };
    let options = ConnectOptions { deadline: Duration::from_millis(50), ..QUICK };
    let err = Sandbox::connect_with(&transport, options).await.err().unwrap();
    assert!(err.code() == Code::Unavailable && err.retryable());
    let text = err.to_string();
    assert!(
        text.starts_with("connect to unix:/nonexistent/agent.sock: not within 0.05 s"),
        "{text}"
    );
    assert!(text.contains("No such file"), "{text}");
}

/// Whether this host has no vsock at all, or no such guest: an error of ours, in time.
#[tokio::test]
async fn a_vsock_that_leads_nowhere_is_an_error() {
    let transport = Transport::Vsock { cid: 0x7fff_0000, port: 1024 };
    let options = ConnectOptions { deadline: Duration::from_millis(300), ..QUICK };
    let err = Sandbox::connect_with(&transport, options).await.unwrap_err();
    assert!(matches!(err.code(), Code::Unavailable | Code::Unimplemented), "{err}");
    assert!(err.to_string().starts_with("connect to vsock:2147418112:1024: "), "{err}");
}

/// All of it can move between the threads of a runtime.
#[tokio::test]
async fn futures_and_streams_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let (guest, sandbox, _server) = guest().await;
    guest.status.send_replace(Some(0));
    let container = send(web(&sandbox)).await;
    send(container.start()).await.unwrap();
    send(container.wait()).await.unwrap();
    let process = send(container.process());
    send(process.stdout()).read_to_end(&mut Vec::new()).await.unwrap();
    send(process.stdin()).shutdown().await.unwrap();
    send(sandbox.destroy()).await.unwrap();
}
