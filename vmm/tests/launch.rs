//! Launching against a stand-in for QEMU (`examples/fake_qemu.rs`): every way to fail has its error, and nothing is
//! left.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyperstart_vmm::{
    AgentAddress, Boot, Disk, Error, Exit, Machine, Share, ShareKind, TransportKind, Vm,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn example(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// A directory with a kernel and an initrd, and a machine of them that runs the stand-in.
struct Setup {
    dir: TempDir,
    machine: Machine,
}

/// As much of a kernel as is looked at.
fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[0x1fe..0x206].copy_from_slice(b"\x55\xaa\0\0HdrS");
    bytes
}

fn setup(words: &[&str]) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vmlinux"), bzimage()).unwrap();
    fs::write(dir.path().join("initrd.img"), "070701").unwrap();
    let boot = Boot::Initrd(dir.path().join("initrd.img"));
    let mut machine = Machine::new(dir.path().join("vmlinux"), boot);
    machine.qemu = Some(example("fake_qemu"));
    machine.transport = Some(TransportKind::Serial);
    machine.cmdline = words.iter().map(|&word| word.to_owned()).collect();
    Setup { dir, machine }
}

impl Setup {
    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    async fn launch(&self) -> Result<Vm, Error> {
        Vm::launch(&self.machine, &self.run_dir()).await
    }

    async fn refusal(&self) -> Error {
        let err = self.launch().await.unwrap_err();
        self.assert_nothing_left();
        err
    }

    /// Launches, waits for READY in vain, and gives the reason.
    async fn failure(&self, deadline: Duration) -> Error {
        let vm = self.launch().await.unwrap();
        let err = vm.ready(deadline).await.unwrap_err();
        drop(vm);
        self.assert_nothing_left();
        err
    }

    fn assert_nothing_left(&self) {
        assert!(!self.run_dir().join("vm").exists(), "sockets are left");
        assert_eq!(processes_about(self.dir.path()), Vec::<String>::new());
    }
}

/// The command lines of all processes that name `path`: QEMU, daemons, guardians.
fn processes_about(path: &Path) -> Vec<String> {
    let wanted = path.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    processes.filter(|line| line.contains(wanted)).collect()
}

#[tokio::test]
async fn a_guest_gets_ready_and_its_port_is_served() {
    let setup = setup(&["fake.ready"]);
    let vm = setup.launch().await.unwrap();
    vm.ready(Duration::from_secs(20)).await.unwrap();
    vm.ready(Duration::from_secs(20)).await.unwrap(); // it stays ready
    let AgentAddress::Unix { path } = vm.address() else { panic!("{:?}", vm.address()) };
    let mut client = tokio::net::UnixStream::connect(path).await.unwrap();
    let request = [0, 0, 0, 2, 0, 0, 0, 5, 1, 0, b'h', b'i'];
    client.write_all(&request).await.unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0, 0, 0, 2, 0, 0, 0, 5, 2, 0, b'h', b'i']);
    assert_eq!(vm.qmp().query_status().await.unwrap(), "running");
    assert_eq!(vm.shutdown(Duration::ZERO).await, Exit::Status(0));
    assert_eq!(vm.wait().await, Exit::Status(0));
    drop(vm);
    setup.assert_nothing_left();
}

#[tokio::test]
async fn the_run_directory_is_private_and_keeps_the_logs() {
    let setup = setup(&["fake.ready", "fake.console=init:_mounts"]);
    fs::create_dir(setup.run_dir()).unwrap();
    fs::set_permissions(setup.run_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let vm = setup.launch().await.unwrap();
    assert_eq!(fs::metadata(setup.run_dir()).unwrap().permissions().mode() & 0o777, 0o700);
    vm.ready(Duration::from_secs(20)).await.unwrap();
    drop(vm);
    let console = setup.run_dir().join("console.log");
    assert_eq!(fs::read_to_string(&console).unwrap(), "init: mounts\n");
    assert_eq!(fs::metadata(&console).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(setup.run_dir().join("qemu.log").exists());
    setup.assert_nothing_left();
}

#[tokio::test]
async fn a_missing_qemu_names_the_package() {
    let mut setup = setup(&[]);
    setup.machine.qemu = Some("no-such-qemu".into());
    let text = setup.refusal().await.to_string();
    assert!(
        text.contains("no-such-qemu") && text.contains("apt install qemu-system-x86"),
        "{text}"
    );
}

#[tokio::test]
async fn a_missing_part_of_the_guest_names_the_make_target() {
    for (part, file) in [("kernel", "vmlinux"), ("initrd", "initrd.img")] {
        let setup = setup(&[]);
        fs::remove_file(setup.dir.path().join(file)).unwrap();
        let text = setup.refusal().await.to_string();
        assert!(text.starts_with(&format!("guest {part} ")), "{text}");
        assert!(text.contains(file) && text.contains("make kernel image"), "{text}");
    }
    let mut setup = setup(&[]);
    let rootfs = setup.dir.path().join("rootfs.erofs");
    fs::write(&rootfs, "odd").unwrap();
    setup.machine = Machine {
        qemu: setup.machine.qemu,
        ..Machine::new(setup.machine.kernel, Boot::Rootfs(rootfs))
    };
    let text = setup.launch().await.unwrap_err().to_string();
    assert!(text.contains("no EROFS image"), "{text}");
}

#[tokio::test]
async fn a_disk_or_share_that_is_not_there_is_named() {
    let mut setup = setup(&[]);
    setup.machine.disks = vec![Disk { path: "/no/such.img".into(), read_only: true }];
    let text = setup.refusal().await.to_string();
    assert!(text.starts_with("disk \"/no/such.img\": No such file"), "{text}");
    setup.machine.disks.clear();
    setup.machine.shares = vec![Share {
        kind: ShareKind::NineP,
        path: "/etc/passwd".into(),
        tag: "t".into(),
        read_only: true,
    }];
    let text = setup.refusal().await.to_string();
    assert!(text.starts_with("share \"/etc/passwd\": Not a directory"), "{text}");
}

#[tokio::test]
async fn more_memory_than_the_host_has_is_refused() {
    let mut setup = setup(&[]);
    setup.machine.memory_mib = u32::MAX;
    assert!(matches!(setup.refusal().await, Error::HostMemory { .. }));
    let setup =
        self::setup(&["fake.refuse=cannot_set_up_guest_memory_'ram':_Cannot_allocate_memory"]);
    let text = setup.refusal().await.to_string();
    assert!(text.starts_with("guest memory of 64 MiB: the host has not enough"), "{text}");
}

#[tokio::test]
async fn a_qemu_that_refuses_an_option_is_quoted() {
    let text = setup(&["fake.refuse=-foo:_invalid_option"]).refusal().await.to_string();
    assert!(text.starts_with("qemu: it ended with status 1 before the guest ran"), "{text}");
    assert!(text.contains("qemu-system-x86_64: -foo: invalid option"), "{text}");
}

#[tokio::test]
async fn a_qemu_without_seccomp_runs_unconfined() {
    let setup = setup(&["fake.no-seccomp", "fake.ready"]);
    setup.launch().await.unwrap().ready(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn a_panic_is_quoted_whether_qemu_ends_or_not() {
    let panic = "fake.console=Kernel_panic_-_not_syncing:_no_init_found";
    for end in ["fake.exit=0", "fake.hang"] {
        let begun = Instant::now();
        let err = setup(&[panic, end]).failure(Duration::from_secs(60)).await;
        assert!(
            matches!(&err, Error::GuestPanicked { line, .. } if line.ends_with("no init found")),
            "{err}"
        );
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not waited for longer");
    }
}

#[tokio::test]
async fn a_qemu_that_ends_early_is_explained() {
    let text = setup(&["fake.console=init:_cgroups", "fake.exit=3"])
        .failure(Duration::from_secs(60))
        .await
        .to_string();
    assert!(text.starts_with("vm: qemu ended with status 3 before the guest was ready"), "{text}");
    assert!(text.contains("init's last step: cgroups"), "{text}");
}

#[tokio::test]
async fn a_guest_that_is_never_ready_is_explained_at_the_deadline() {
    let begun = Instant::now();
    let err = setup(&["fake.console=init:_listen", "fake.hang"])
        .failure(Duration::from_millis(400))
        .await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    let text = err.to_string();
    assert!(text.starts_with("guest: not ready after 0.4 s; init's last step: listen"), "{text}");
    assert!(text.contains("console:\n    init: listen"), "{text}");
}

/// KVM that cannot run the guest stops it, and QEMU goes on.
#[tokio::test]
async fn a_guest_that_qemu_has_stopped_is_not_waited_for() {
    let begun = Instant::now();
    let err = setup(&["fake.stop"]).failure(Duration::from_secs(60)).await;
    assert!(begun.elapsed() < Duration::from_secs(30));
    let text = err.to_string();
    assert!(text.starts_with("vm: qemu has stopped the guest (internal-error)"), "{text}");
    assert!(text.contains("HYPERSTART_ACCEL=tcg"), "{text}");
}

#[tokio::test]
async fn another_guest_than_ours_is_recognised() {
    let err = setup(&["fake.wrong"]).failure(Duration::from_secs(20)).await;
    assert!(matches!(&err, Error::NotOurGuest { said } if said == "login: "), "{err}");
}

#[tokio::test]
async fn a_failed_ready_can_be_asked_again() {
    let setup = setup(&["fake.hang"]);
    let vm = setup.launch().await.unwrap();
    for _ in 0..2 {
        let err = vm.ready(Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(err, Error::NotReady { .. }), "{err}");
    }
    vm.kill();
    assert_eq!(vm.wait().await, Exit::Signal(9));
    assert!(matches!(vm.ready(Duration::from_secs(5)).await, Err(Error::VmEnded { .. })));
}

#[tokio::test]
async fn two_vms_do_not_share_a_run_directory() {
    let setup = setup(&["fake.hang"]);
    let first = setup.launch().await.unwrap();
    assert!(setup.launch().await.unwrap_err().to_string().contains("File exists"));
    assert_eq!(first.qmp().query_status().await.unwrap(), "running");
}

/// An owner in a process of its own, with stand-ins for QEMU and the daemon.
fn spawn_owner(setup: &Setup, transport: &str) -> Child {
    spawn_owner_with(setup, transport, &[], &[])
}

fn spawn_owner_with(
    setup: &Setup,
    transport: &str,
    variables: &[(&str, &str)],
    words: &[&str],
) -> Child {
    let bin = setup.dir.path().join("bin");
    if !bin.exists() {
        fs::create_dir(&bin).unwrap();
        symlink(example("fake_qemu"), bin.join("vhost-device-vsock")).unwrap();
    }
    let path = std::env::join_paths([bin, "/usr/bin".into(), "/bin".into()]).unwrap();
    let mut owner = Command::new(example("owner"));
    owner
        .arg(setup.run_dir())
        .arg(setup.dir.path().join("vmlinux"))
        .arg(setup.dir.path().join("initrd.img"));
    owner
        .arg(transport)
        .args(words)
        .envs(variables.iter().copied())
        .env("PATH", path)
        .env("HYPERSTART_QEMU", example("fake_qemu"));
    owner.stdout(Stdio::piped()).spawn().unwrap()
}

fn assert_nothing_left_soon(setup: &Setup) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_about(setup.dir.path()).is_empty() || setup.run_dir().join("vm").exists() {
        let left = processes_about(setup.dir.path());
        assert!(
            Instant::now() < deadline,
            "left: {left:?}, {:?}",
            fs::read_dir(setup.run_dir().join("vm"))
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_owner_that_is_killed_leaves_nothing() {
    use std::io::{BufRead, BufReader};
    for transport in ["serial", "vhost-user-vsock"] {
        let setup = setup(&[]);
        let mut owner = spawn_owner(&setup, transport);
        let mut said = String::new();
        BufReader::new(owner.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.starts_with("launched "), "{said}");
        let running = processes_about(setup.dir.path());
        assert!(running.iter().any(|line| line.contains("-append")), "{running:?}");
        assert!(running.iter().any(|line| line.contains("hyperstart-guardian")), "{running:?}");
        assert_eq!(
            running.iter().any(|line| line.contains("--uds-path")),
            transport != "serial",
            "{running:?}"
        );
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert_nothing_left_soon(&setup);
    }
}

/// At whatever moment of the start it dies.
#[test]
fn an_owner_that_is_killed_while_it_launches_leaves_nothing() {
    for delay in (0..60).step_by(2) {
        let setup = setup(&[]);
        let mut owner = spawn_owner(&setup, "vhost-user-vsock");
        std::thread::sleep(Duration::from_millis(delay));
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert_nothing_left_soon(&setup);
    }
}

/// A VM that is to outlive its owner does, and an heir has it: its console, its serial line, its end.
#[tokio::test]
async fn an_heir_takes_over_what_its_owner_had() {
    use std::io::{BufRead, BufReader};
    let setup = setup(&[]);
    let mut owner = spawn_owner_with(&setup, "serial", &[("OWNER_HEIR", "1")], &["fake.ready"]);
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().starts_with("ready ") {}
    owner.kill().unwrap();
    owner.wait().unwrap();
    for _ in 0..3 {
        let mut owner = spawn_owner_with(&setup, "serial", &[("OWNER_HEIR", "adopt")], &[]);
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().starts_with("ready ") {}
        owner.kill().unwrap();
        owner.wait().unwrap();
    }
    let (vm, plugged) = Vm::adopt(&setup.run_dir()).await.unwrap();
    assert!(plugged.is_empty());
    vm.ready(Duration::from_secs(60)).await.unwrap();
    let AgentAddress::Unix { path } = vm.address() else { panic!("{:?}", vm.address()) };
    let mut client = tokio::net::UnixStream::connect(path).await.unwrap();
    client.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 1, 0, b'x']).await.unwrap();
    let mut answer = [0; 11];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0, 0, 0, 1, 0, 0, 0, 1, 2, 0, b'x']);
    assert_eq!(vm.qmp().query_status().await.unwrap(), "running");
    vm.kill();
    assert_eq!(vm.wait().await, Exit::Unknown);
    drop(vm);
    assert_nothing_left_soon(&setup);
}

/// What is left of a VM whose owner was killed while it launched is ended by who comes after.
#[test]
fn what_is_left_of_a_launch_is_ended() {
    for delay in (0..60).step_by(4) {
        let setup = setup(&[]);
        let mut owner = spawn_owner_with(&setup, "vhost-user-vsock", &[("OWNER_HEIR", "1")], &[]);
        std::thread::sleep(Duration::from_millis(delay));
        owner.kill().unwrap();
        owner.wait().unwrap();
        hyperstart_vmm::end_remains(&setup.run_dir()).unwrap();
        assert_nothing_left_soon(&setup);
    }
}

#[tokio::test]
async fn a_broken_line_is_told_while_the_vm_runs() {
    let setup = setup(&["fake.ready", "fake.hangup"]);
    let vm = setup.launch().await.unwrap();
    vm.ready(Duration::from_secs(20)).await.unwrap();
    let AgentAddress::Unix { path } = vm.address() else { panic!("{:?}", vm.address()) };
    let mut client = tokio::net::UnixStream::connect(path).await.unwrap();
    client.write_all(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 0]).await.unwrap();
    let err = tokio::time::timeout(Duration::from_secs(20), vm.broken()).await.unwrap();
    assert!(err.to_string().starts_with("transport serial: the line has ended"), "{err}");
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "the client is told");
    assert_eq!(vm.qmp().query_status().await.unwrap(), "running");
}

#[test]
fn a_vm_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Vm>();
}

/// QEMU ends without a word when the guest resets: before we are connected it looks like a refusal, and is none.
#[tokio::test]
async fn a_guest_that_ends_qemu_at_once_is_told_from_a_refusal() {
    let mut setup = setup(&["fake.reset"]);
    setup.machine.memory_mib = 8;
    let text = setup.refusal().await.to_string();
    assert!(text.starts_with("guest: 8 MiB of memory are not enough"), "{text}");
    setup.machine.memory_mib = 64;
    assert!(matches!(setup.refusal().await, Error::VmEnded { .. }));
}

/// Each asks with a deadline of its own, also while another waits.
#[tokio::test]
async fn several_may_wait_for_ready() {
    let setup = setup(&["fake.hang"]);
    let vm = setup.launch().await.unwrap();
    let (long, short) = (Duration::from_secs(5), Duration::from_millis(100));
    let begun = Instant::now();
    tokio::select! {
        _ = vm.ready(long) => panic!("it is not ready"),
        waited = vm.ready(short) => assert!(matches!(waited, Err(Error::NotReady { .. }))),
    }
    assert!(begun.elapsed() < long);
}
