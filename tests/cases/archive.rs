//! Files in and out of containers as tar streams, and what neither an archive nor a container can make of it.

use harness::raw::{bytes_field, number_field};
use harness::volume::add_mounts;
use harness::{Finished, Run, Running, Vm, VmConfig, pattern, sha256};
use hyperstart::{Code, ExecId, Process, Result};
use hyperstart_archive::{Entry, Kind, Reader, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn boot() -> Vm {
    Vm::boot(&VmConfig::default())
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let (uid, gid, mtime) = (1000, 1001, 1_000_000_000);
    Entry { path: path.as_bytes().to_owned(), kind, mode, uid, gid, mtime, size: 0 }
}

/// An archive of these, each with its data.
fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, data) in entries {
        let size = u64::try_from(data.len()).unwrap();
        bytes.extend(encode(&Entry { size, ..entry.clone() }).unwrap());
        bytes.extend(*data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

/// Gives a process its input and takes what it says.
fn finish(vm: &Vm, process: &Process, input: &[u8]) -> Finished {
    let feed = async {
        let mut stdin = process.stdin();
        // What ends in the middle of its input has its reasons, which it says.
        if stdin.write_all(input).await.is_ok() {
            drop(stdin.shutdown().await);
        }
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (mut out, mut err) = (process.stdout(), process.stderr());
    let ended = async {
        tokio::join!(
            feed,
            out.read_to_end(&mut stdout),
            err.read_to_end(&mut stderr),
            process.wait()
        )
    };
    let ((), _, _, status) = vm.run("the end of an archive", ended);
    Finished { code: status.unwrap().code(), stdout, stderr }
}

fn try_import(vm: &Vm, to: &Running<'_>, id: &str, path: &str, reset: bool) -> Result<Process> {
    vm.run("import", to.container().import(ExecId::new(id)?, path, reset))
}

fn try_export(vm: &Vm, from: &Running<'_>, id: &str, path: &str) -> Result<Process> {
    vm.run("export", from.container().export(ExecId::new(id)?, path, false))
}

fn import(vm: &Vm, to: &Running<'_>, id: &str, path: &str, bytes: &[u8]) -> Finished {
    finish(vm, &try_import(vm, to, id, path, false).unwrap_or_else(|err| panic!("{err}")), bytes)
}

fn export(vm: &Vm, from: &Running<'_>, id: &str, path: &str) -> Finished {
    finish(vm, &try_export(vm, from, id, path).unwrap_or_else(|err| panic!("{err}")), b"")
}

/// The entries of an archive that must be whole, without what was in files.
fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(&mut bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        found.push(entry);
    }
    found.sort_by(|one, two| one.path.cmp(&two.path));
    found
}

fn fails(said: &Finished, text: &str) {
    assert!(said.code == 1 && said.stderr().contains(text), "{text}: {said:?}");
}

/// A tree goes in and comes out as it was: names, links, modes, owners, times; with the owners reset it is root's.
#[test]
fn tree_goes_in_and_out() {
    let vm = boot();
    let web = vm.start("web", &Run::busybox(["sleep", "6000"]));
    let long = format!("top/{}/{}", "l".repeat(120), "n".repeat(90));
    let tree = [
        (entry("top/", Kind::Directory, 0o750), &b""[..]),
        (entry("top/empty/", Kind::Directory, 0o1777), b""),
        (entry("top/f", Kind::File, 0o4755), b"hello"),
        (entry("top/odd \n'é$", Kind::File, 0o600), b""),
        (entry("top/same", Kind::HardLink(b"top/f".to_vec()), 0o4755), b""),
        (entry("top/link", Kind::Link(b"/etc/../f".to_vec()), 0o777), b""),
        (entry("top/pipe", Kind::Fifo, 0o644), b""),
        (entry("top/null", Kind::Character(1, 3), 0o666), b""),
        (entry(&long, Kind::File, 0o444), b"deep"),
    ];
    let said = import(&vm, &web, "in", "/tmp", &archive(&tree));
    assert_eq!((said.code, said.stderr()), (0, ""), "{said:?}");
    let look = "cd /tmp/top; stat -c '%n %A %u:%g %h %Y' . empty f same link pipe null; cat same; readlink link; stat -c %t:%T null";
    let mut expected = String::new();
    for (name, mode, links) in [
        (".", "drwxr-x---", 4),
        ("empty", "drwxrwxrwt", 2),
        ("f", "-rwsr-xr-x", 2),
        ("same", "-rwsr-xr-x", 2),
        ("link", "lrwxrwxrwx", 1),
        ("pipe", "prw-r--r--", 1),
        ("null", "crw-rw-rw-", 1),
    ] {
        expected += &format!("{name} {mode} 1000:1001 {links} 1000000000\n");
    }
    expected += "hello/etc/../f\n1:3\n";
    assert_eq!(web.exec("look", &Run::shell(look)).finish().stdout(), expected);

    let said = export(&vm, &web, "out", "/tmp/top");
    assert_eq!((said.code, said.stderr()), (0, ""));
    let mut sent: Vec<Entry> = tree
        .iter()
        .map(|(entry, data)| Entry { size: u64::try_from(data.len()).unwrap(), ..entry.clone() })
        .collect();
    sent.push(entry(&format!("top/{}/", "l".repeat(120)), Kind::Directory, 0o755));
    sent.sort_by(|one, two| one.path.cmp(&two.path));
    let came = entries(&said.stdout);
    let names =
        |entries: &[Entry]| entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&came), names(&sent));
    for (came, sent) in came.iter().zip(&sent) {
        let is_made = sent.mode == 0o755 && sent.kind == Kind::Directory; // that nobody described
        let is_either = matches!(sent.path.as_slice(), b"top/f" | b"top/same"); // whichever is found first
        assert!(is_made || is_either || came == sent, "{came:?} {sent:?}");
    }
    // Other ways to name it: the content alone, the root's one file, what a link leads to.
    let names = |said: Finished| {
        assert_eq!(said.code, 0, "{said:?}");
        entries(&said.stdout)
            .into_iter()
            .map(|entry| String::from_utf8(entry.path).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(export(&vm, &web, "dot", "/tmp/top/empty/.")), ["./"]);
    assert_eq!(names(export(&vm, &web, "file", "/tmp/top/f")), ["f"]);
    web.exec("ln", &Run::shell("ln -s /tmp/top/f /tmp/to-f; ln -s /tmp/top /tmp/to-top")).finish();
    assert_eq!(names(export(&vm, &web, "link", "/tmp/to-f")), ["to-f"]);
    assert_eq!(names(export(&vm, &web, "through", "/tmp/to-top/empty")), ["empty/"]);
    let followed =
        vm.run("export", web.container().export(ExecId::new("follow").unwrap(), "/tmp/to-f", true));
    let said = finish(&vm, &followed.unwrap(), b"");
    assert_eq!(entries(&said.stdout)[0].kind, Kind::File);
    // The kernel's own files are nobody's to copy.
    let said = export(&vm, &web, "root", "/");
    assert!(
        said.code == 0 && said.stderr().contains("\"./proc\" is the kernel's"),
        "{:?}",
        said.stderr()
    );

    let reset = try_import(&vm, &web, "reset", "/tmp/top/empty", true).unwrap();
    assert_eq!(finish(&vm, &reset, &archive(&tree)).code, 0);
    let look = "stat -c '%u:%g %A' /tmp/top/empty/top /tmp/top/empty/top/f /tmp/top/empty/top/link";
    let said = web.exec("look-again", &Run::shell(look)).finish();
    assert_eq!(said.stdout(), "0:0 drwxr-x---\n0:0 -rwsr-xr-x\n0:0 lrwxrwxrwx\n");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A hundred megabytes go in and out unchanged, while the container's memory limit is far below.
#[test]
fn large_file_goes_in_and_out() {
    const SIZE: usize = 100 << 20;
    let vm = Vm::boot(&VmConfig { memory_mib: 512, ..VmConfig::default() });
    let web = vm.start("web", &Run::busybox(["sleep", "6000"]));
    let data = pattern(SIZE);
    let bytes = archive(&[(entry("big", Kind::File, 0o644), &data)]);
    let said = import(&vm, &web, "in", "/tmp", &bytes);
    assert_eq!((said.code, said.stderr()), (0, ""));
    let sum = web.exec("sum", &Run::busybox(["sha256sum", "/tmp/big"])).finish();
    assert!(sum.stdout().starts_with(&sha256(&data)), "{}", sum.stdout());
    let said = export(&vm, &web, "out", "/tmp/big");
    assert_eq!((said.code, said.stderr()), (0, ""));
    assert!(said.stdout.get(512..512 + SIZE) == Some(data.as_slice()), "other bytes came out");
    web.kill();
    web.remove();
    vm.shutdown();
}

/// What cannot be is an error: of the call, where the path is wrong; on stderr with exit code 1, where the archive is.
#[test]
fn what_cannot_be_copied_is_said() {
    let vm = boot();
    let web = vm.start("web", &Run::busybox(["sleep", "6000"]));
    for (path, code, text) in [
        ("/nowhere", Code::NotFound, "ENOENT"),
        ("/etc/passwd/x", Code::InvalidArgument, "ENOTDIR"),
        ("relative", Code::InvalidArgument, "not absolute"),
        ("", Code::InvalidArgument, "not absolute"),
        ("/proc/1/root/etc", Code::PermissionDenied, "EACCES"),
    ] {
        for err in [
            try_export(&vm, &web, "bad", path).unwrap_err(),
            try_import(&vm, &web, "bad", path, false).unwrap_err(),
        ] {
            assert!(
                err.code() == code && err.message().contains(text),
                "{path}: {:?} {err}",
                err.code()
            );
        }
    }
    let err = try_import(&vm, &web, "bad", "/etc/passwd", false).unwrap_err();
    assert!(err.code() == Code::InvalidArgument && err.message().contains("ENOTDIR"), "{err}");
    let err = try_import(&vm, &web, "web", "/tmp", false).unwrap_err();
    assert_eq!(err.code(), Code::AlreadyExists, "{err}");
    let mut raw = vm.raw();
    for (stream_id, id) in [(1, "nobody"), (3, "../web")] {
        let payload = [
            bytes_field(1, id.as_bytes()),
            bytes_field(2, b"e"),
            bytes_field(3, b"/tmp"),
            number_field(4, 1),
        ];
        let reply = raw.call(stream_id, "hyperstart.v1.Guest", "ExportFiles", &payload.concat());
        let code = if id == "nobody" { Code::NotFound } else { Code::InvalidArgument };
        assert!(reply.is(code), "{reply:?}");
    }
    let whole = archive(&[(entry("cut", Kind::File, 0o644), &[1; 3000])]);
    fails(
        &import(&vm, &web, "cut", "/tmp", &whole[..2000]),
        "truncated; what came before it stays",
    );
    fails(&import(&vm, &web, "empty", "/tmp", b""), "truncated");
    fails(&import(&vm, &web, "noise", "/tmp", &[b'x'; 4096]), "checksum");
    assert_eq!(
        web.exec("stat", &Run::busybox(["stat", "-c", "%s", "/tmp/cut"])).finish().stdout(),
        "1488\n"
    );

    let sealed = vm.start_with("sealed", &Run::busybox(["sleep", "6000"]), |spec| {
        let mut root = spec.root().clone().unwrap();
        root.set_readonly(Some(true));
        spec.set_root(Some(root));
    });
    fails(&import(&vm, &sealed, "in", "/", &whole), "Read-only file system");
    assert_eq!(export(&vm, &sealed, "out", "/etc").code, 0);
    vm.run("pause", sealed.container().pause()).unwrap();
    let err = try_export(&vm, &sealed, "late", "/etc").unwrap_err();
    assert!(err.code() == Code::FailedPrecondition && err.message().contains("paused"), "{err}");
    vm.run("resume", sealed.container().resume()).unwrap();
    sealed.kill();
    let err = try_export(&vm, &sealed, "late", "/etc").unwrap_err();
    assert_eq!(err.code(), Code::FailedPrecondition, "{err}");
    sealed.remove();
    web.kill();
    web.remove();
    vm.shutdown();
}

/// A hostile archive changes nothing outside of the directory that it is unpacked into, be the way a name, a link of its
/// own or one that was there; a device is the container's to make only if its programs might.
#[test]
fn hostile_archives_are_confined() {
    let vm = boot();
    let web = vm.start("web", &Run::shell("mkdir /t /victim; echo mine > /victim/f; ln -s ../victim /t/there; ln -s /victim /t/abs; echo ready; exec sleep 6000"));
    web.says("ready");
    let file = |path: &str| (entry(path, Kind::File, 0o644), &b"bad"[..]);
    let link =
        |path: &str, to: &str| (entry(path, Kind::Link(to.as_bytes().to_vec()), 0o777), &b""[..]);
    let hard = |path: &str, to: &str| {
        (entry(path, Kind::HardLink(to.as_bytes().to_vec()), 0o644), &b""[..])
    };
    type Attack<'a> = (&'a str, Vec<(Entry, &'a [u8])>);
    let attacks: [Attack<'_>; 9] = [
        ("up", vec![file("../victim/f")]),
        ("up-inside", vec![file("a/../../victim/f")]),
        ("through", vec![link("l", "../victim"), file("l/f")]),
        ("absolute", vec![link("m", "/victim"), file("m/f")]),
        ("there", vec![file("there/f")]),
        ("there-abs", vec![file("abs/f")]),
        ("hard", vec![hard("h", "../victim/f")]),
        ("hard-through", vec![hard("h", "there/f")]),
        ("directory", vec![link("n", "../victim"), (entry("n/", Kind::Directory, 0o777), b"")]),
    ];
    for (name, entries) in &attacks {
        fails(&import(&vm, &web, name, "/t", &archive(entries)), "leads out of the directory");
    }
    let huge = encode(&Entry { size: 1 << 60, ..entry("huge", Kind::File, 0o644) }).unwrap();
    fails(&import(&vm, &web, "huge", "/t", &huge), "truncated");
    let twice = [file("twice"), link("twice", "/victim/f"), file("twice"), file("/rooted")];
    assert_eq!(import(&vm, &web, "twice", "/t", &archive(&twice)).code, 0);
    let look = "cat /victim/f; ls /victim; stat -c '%A %h' /victim/f /victim; cat /t/twice /t/rooted; ls -d /rooted";
    let said = web.exec("look", &Run::shell(look)).finish();
    assert_eq!(said.stdout(), "mine\nf\n-rw-r--r-- 1\ndrwxr-xr-x 2\nbadbad");

    let plain = vm.start_with("plain", &Run::busybox(["sleep", "6000"]), |spec| {
        harness::edit::edit(spec, |config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = serde_json::json!([]);
            }
        });
    });
    let device = archive(&[(entry("null", Kind::Character(1, 3), 0o666), b"")]);
    fails(&import(&vm, &plain, "device", "/tmp", &device), "a device, which may not be made here");
    // The owner of a file is the archive's to say, whatever the container's programs may do.
    assert_eq!(import(&vm, &plain, "file", "/tmp", &archive(&[file("f")])).code, 0);
    let owner = plain.exec("owner", &Run::busybox(["stat", "-c", "%u", "/tmp/f"])).finish();
    assert_eq!(owner.stdout(), "1000\n");
    for container in [plain, web] {
        container.kill();
        container.remove();
    }
    vm.shutdown();
}

/// What packs and unpacks is in the container's cgroup and root, and out of its sight: none of its processes can see it,
/// and it has no right that is not about files. It ends with the container, and by a signal of its own; it is remembered
/// until both its outputs were read, or it is deleted.
#[test]
fn work_is_charged_to_the_container_and_out_of_its_sight() {
    let vm = boot();
    let run = Run::busybox(["sleep", "6000"]);
    let web = vm.start("web", &run);
    let import = try_import(&vm, &web, "wait", "/tmp", false).unwrap();
    let look = "ls /proc | grep -c '^[0-9]'; cat /sys/fs/cgroup/cgroup.procs | sort -n | head -1";
    let said = web.exec("look", &Run::shell(look)).finish();
    let lines: Vec<&str> = said.stdout().lines().collect();
    assert_eq!(lines[1], "0", "a process of the cgroup that has no pid there: {lines:?}");
    let inspect = "cd /guest/proc; for p in [0-9]*; do if grep -q '^Uid:.*0' $p/status && [ \"$(readlink $p/exe)\" = /init ] && [ $p != 1 ]; \
                   then grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs)' $p/status; cat $p/cgroup; fi; done";
    let said = vm.finish_well("look-in", &Run::shell(inspect), harness::inspect::privileged);
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID; and MKNOD, which the container's programs have.
    let rights = "000000000800001b";
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(said.stdout().contains(&format!("{name}:\t{rights}")), "{}", said.stdout());
    }
    assert!(
        said.stdout().contains("NoNewPrivs:\t1") && said.stdout().contains("/web"),
        "{}",
        said.stdout()
    );
    vm.run("kill", import.signal(9)).unwrap();
    assert_eq!(vm.run("wait", import.wait()).unwrap().code(), 137);
    let is_known = || {
        let status = vm.run("status", web.container().status()).unwrap();
        status.execs.contains_key(&ExecId::new("wait").unwrap())
    };
    assert!(is_known(), "nobody has read what it said");
    vm.run("delete", import.delete()).unwrap();
    assert!(!is_known());
    let import = try_import(&vm, &web, "wait-2", "/tmp", false).unwrap();
    web.remove();
    drop(import);

    // One that was not started yet takes files too, and so does one in a user namespace: by its own ids.
    let web = vm.create("web", &run);
    assert_eq!(
        self::import(
            &vm,
            &web,
            "early",
            "/tmp",
            &archive(&[(entry("f", Kind::File, 0o600), b"x")])
        )
        .code,
        0
    );
    let web = web.started();
    assert_eq!(web.exec("cat", &Run::busybox(["cat", "/tmp/f"])).finish().stdout(), "x");
    let mapped = vm.start("mapped", &Run::busybox(["sleep", "6000"]).ids(100_000));
    assert_eq!(
        self::import(
            &vm,
            &mapped,
            "in",
            "/tmp",
            &archive(&[(entry("f", Kind::File, 0o600), b"x")])
        )
        .code,
        0
    );
    let owner = mapped.exec("owner", &Run::busybox(["stat", "-c", "%u:%g", "/tmp/f"])).finish();
    assert_eq!(owner.stdout(), "1000:1001\n");
    let came = entries(&export(&vm, &mapped, "out", "/tmp/f").stdout);
    assert_eq!((came[0].uid, came[0].gid), (1000, 1001));
    let device = archive(&[(entry("null", Kind::Character(1, 3), 0o666), b"")]);
    fails(
        &self::import(&vm, &mapped, "device", "/tmp", &device),
        "a device, which may not be made here",
    );
    let too_high = Entry { uid: 70_000, ..entry("g", Kind::File, 0o600) };
    fails(
        &self::import(&vm, &mapped, "owner-2", "/tmp", &archive(&[(too_high, b"x")])),
        "Invalid argument",
    );
    for container in [mapped, web] {
        container.kill();
        container.remove();
    }
    vm.shutdown();
}

/// Volumes of the container are in its archives, and unpacked into as the container would write to them.
#[test]
fn volumes_are_part_of_the_tree() {
    let vm = boot();
    let web = vm.start_with("web", &Run::busybox(["sleep", "6000"]), |spec| {
        add_mounts(
            spec,
            serde_json::json!([
                { "destination": "/v/rw", "type": "tmpfs", "source": "tmpfs", "options": [] },
                { "destination": "/v/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] },
            ]),
        );
    });
    let file = archive(&[(entry("f", Kind::File, 0o644), b"x")]);
    assert_eq!(import(&vm, &web, "rw", "/v/rw", &file).code, 0);
    fails(&import(&vm, &web, "ro", "/v/ro", &file), "Read-only file system");
    let names: Vec<String> = entries(&export(&vm, &web, "out", "/v").stdout)
        .into_iter()
        .map(|entry| String::from_utf8(entry.path).unwrap())
        .collect();
    assert_eq!(names, ["v/", "v/ro/", "v/rw/", "v/rw/f"]);
    web.kill();
    web.remove();
    vm.shutdown();
}
