//! CopyFile, as Kata's runtimes send files where nothing of the host's is shared, and what a container can do about it.

use harness::raw::{Raw, Reply, bytes_field, number_field};
use harness::volume::add_mounts;
use harness::{Run, Vm, VmConfig};
use hyperstart::Code;

const SHARE: &str = "/run/kata-containers/shared/containers";
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// `grpc.CopyFileRequest`.
struct Copy<'a> {
    path: &'a str,
    size: i64,
    mode: u32,
    directory_mode: u32,
    ids: (i32, i32),
    offset: i64,
    data: &'a [u8],
}

impl<'a> Copy<'a> {
    fn whole(path: &'a str, data: &'a [u8]) -> Self {
        let size = i64::try_from(data.len()).unwrap();
        let (mode, directory_mode) = (REGULAR | 0o644, 0o755);
        Self { path, size, mode, directory_mode, ids: (0, 0), offset: 0, data }
    }

    fn piece(self, size: i64, offset: i64) -> Self {
        Self { size, offset, ..self }
    }

    fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let path = if self.path.starts_with('/') || self.path.is_empty() {
            self.path.to_owned()
        } else {
            format!("{SHARE}/{}", self.path)
        };
        let id = |id: i32| i64::from(id).cast_unsigned();
        [
            bytes_field(1, path.as_bytes()),
            number_field(2, self.size.cast_unsigned()),
            number_field(3, self.mode.into()),
            number_field(4, self.directory_mode.into()),
            number_field(5, id(self.ids.0)),
            number_field(6, id(self.ids.1)),
            number_field(7, self.offset.cast_unsigned()),
            bytes_field(8, self.data),
        ]
        .concat()
    }
}

/// Copies, one after the other, on one connection.
struct Copier<'vm> {
    raw: Raw<'vm>,
    stream_id: u32,
}

impl Copier<'_> {
    fn send(&mut self, copy: &Copy<'_>) -> Reply {
        self.stream_id += 2;
        self.raw.call(self.stream_id, "grpc.AgentService", "CopyFile", &copy.bytes())
    }

    fn ok(&mut self, copy: &Copy<'_>) {
        let reply = self.send(copy);
        assert_eq!((reply.code, reply.message.as_str()), (0, ""), "{}", copy.path);
    }

    fn fails(&mut self, copy: &Copy<'_>, code: Code, text: &str) {
        let reply = self.send(copy);
        assert!(reply.is(code) && reply.message.contains(text), "{}: {reply:?}", copy.path);
    }
}

fn boot() -> Vm {
    Vm::boot(&VmConfig::default())
}

/// Runs a script that sees a directory of the share at /share.
fn in_share(vm: &Vm, name: &str, directory: &str, script: &str) -> String {
    let source = format!("{SHARE}/{directory}");
    let said = vm.finish_well(name, &Run::shell(script), |spec| {
        add_mounts(
            spec,
            serde_json::json!([{
                "destination": "/share", "type": "bind", "source": source.trim_end_matches('/'), "options": ["rbind"],
            }]),
        );
    });
    said.stdout().to_owned()
}

/// A file arrives in pieces, whole or not at all, with its mode and owner; directories and links arrive too; a copy that
/// was broken off, a piece that comes twice and one that comes too early never make a wrong file.
#[test]
fn files_arrive_whole_or_not_at_all() {
    let vm = boot();
    let mut copier = Copier { raw: vm.raw(), stream_id: 1 };
    let copier = &mut copier;
    let mut file = Copy::whole("web/conf/a.txt", b"hello");
    (file.mode, file.directory_mode, file.ids) = (REGULAR | 0o640, 0o750, (1000, 1001));
    copier.ok(&file);
    copier.ok(&Copy::whole("web/empty", b""));
    copier.ok(&Copy { mode: DIRECTORY | 0o1777, ids: (7, 8), ..Copy::whole("web/dir", b"") });
    copier.ok(&Copy { mode: LINK, ids: (7, 8), ..Copy::whole("web/link", b"conf/a.txt") });
    copier.ok(&Copy::whole("web/link", b"other").mode(LINK)); // replaced, as a configuration's `..data` is

    // Begun, and broken off: nothing shows. Begun anew by a shorter file: nothing of the first is left.
    copier.ok(&Copy::whole("web/big", b"xxxxxxxx").piece(20, 0));
    copier.ok(&Copy::whole("web/big", b"abcd").piece(12, 0));
    assert_eq!(
        in_share(&vm, "look", "web", "ls -A /share | sort | tr '\\n' ' '"),
        ".big.tmp conf dir empty link "
    );
    copier.ok(&Copy::whole("web/big", b"efgh").piece(12, 4));
    copier.ok(&Copy::whole("web/big", b"efgh").piece(12, 4)); // its answer was lost
    copier.fails(
        &Copy::whole("web/big", b"l").piece(12, 11),
        Code::OutOfRange,
        "after a gap: 8 bytes",
    );
    copier.ok(&Copy::whole("web/big", b"ijkl").piece(12, 8));
    copier.ok(&Copy::whole("web/big", b"ijkl").piece(12, 8)); // its answer was lost too
    copier.fails(&Copy::whole("web/big", b"IJKL").piece(12, 8), Code::OutOfRange, "after a gap");
    copier.fails(&Copy::whole("web/new", b"ijkl").piece(12, 8), Code::OutOfRange, "after a gap");

    let script = "cd /share; stat -c '%n %A %u:%g %s' conf conf/a.txt empty dir link; readlink link; cat conf/a.txt big";
    assert_eq!(
        in_share(&vm, "end", "web", script),
        "conf drwxr-x--- 0:0 60\nconf/a.txt -rw-r----- 1000:1001 5\nempty -rw-r--r-- 0:0 0\n\
         dir drwxrwxrwt 7:8 40\nlink lrwxrwxrwx 0:0 5\nother\nhelloabcdefghijkl"
    );
    vm.shutdown();
}

/// A copy stays below the share, whatever its path says and whatever a container has put in its way.
#[test]
fn copy_is_confined_to_the_share() {
    let vm = boot();
    let mut copier = Copier { raw: vm.raw(), stream_id: 1 };
    let copier = &mut copier;
    for path in [
        "",
        "/",
        "/etc/passwd",
        "/run/kata-containers/x",
        "/run/kata-containers/shared/containers",
        "../x",
        "web/../../x",
        "/run/kata-containers/shared/containersx/y",
    ] {
        copier.fails(&Copy::whole(path, b"x"), Code::InvalidArgument, "copy file");
    }
    let name = "x".repeat(256);
    copier.fails(&Copy::whole(&name, b"x"), Code::InvalidArgument, "ENAMETOOLONG");
    for (copy, text) in [
        (Copy::whole("f", b"12345").piece(4, 0), "beyond 4 bytes"),
        (Copy::whole("f", b"1").piece(i64::MAX, i64::MAX), "beyond"),
        (Copy::whole("f", b"1").piece(-1, 0), "file_size"),
        (Copy::whole("f", b"1").piece(1, -1), "offset"),
        (Copy::whole("f", b"1").mode(0o060_644), "file_mode"),
        (Copy { ids: (-1, 0), ..Copy::whole("f", b"1") }, "uid"),
        (Copy { ids: (0, -1), ..Copy::whole("f", b"1") }, "gid"),
        (Copy::whole("l", b"").mode(LINK), "no target"),
        (Copy::whole("l", b"a\0b").mode(LINK), "no target"),
        (Copy::whole("l", &[b'x'; 4096]).mode(LINK), "no target"),
    ] {
        copier.fails(&copy, Code::InvalidArgument, text);
    }

    copier.ok(&Copy::whole("victim", b"safe"));
    copier.ok(&Copy::whole("vol", b"").mode(DIRECTORY | 0o777));
    let plant = "cd /share; ln -s .. up; ln -s /run abs; mkdir dir; ln -s ../../victim dir/.f.tmp; \
                 ln -s ../victim f; ln -s ../victim .g.tmp; mkfifo .p.tmp; echo mine > m; ln m .h.tmp; mkdir d";
    in_share(&vm, "plant", "vol", plant);
    for path in ["vol/up/victim", "vol/up/new", "vol/abs/new", "vol/f/x"] {
        for copy in [
            Copy::whole(path, b"bad"),
            Copy::whole(path, b"bad").mode(LINK),
            Copy::whole(path, b"").mode(DIRECTORY | 0o700),
        ] {
            let reply = copier.send(&copy);
            assert!(reply.code != 0, "{path}: {reply:?}");
        }
    }
    // What is in the place of a file is replaced, not followed; nor is what is in the place of its beginning.
    copier.ok(&Copy::whole("vol/f", b"new"));
    copier.ok(&Copy::whole("vol/dir/f", b"new"));
    copier.fails(&Copy::whole("vol/d", b"new"), Code::InvalidArgument, "EISDIR");
    for (path, text) in [("vol/g", "ELOOP"), ("vol/p", ""), ("vol/h", "something else")] {
        let reply = copier.send(&Copy::whole(path, b"new").piece(7, 4));
        assert!(reply.code != 0 && reply.message.contains(text), "{path}: {reply:?}");
        copier.ok(&Copy::whole(path, b"new")); // from its beginning it needs nothing of what was there
    }
    let look = "cd /share; cat victim; ls -A; cd vol; cat m f dir/f g p h; stat -c %F f dir/f g p h | sort -u; ls /share/vol/d";
    assert_eq!(
        in_share(&vm, "look", "", look),
        "safevictim\nvol\nmine\nnewnewnewnewnewregular file\n"
    );
    vm.shutdown();
}

/// What a container has left as its last words is read, 4 KiB of it, from the file that was mounted for it or from its
/// root, also after its end; a link that it has put there leads nowhere.
#[test]
fn last_words_are_read() {
    let vm = boot();
    let mut copier = Copier { raw: vm.raw(), stream_id: 1 };
    copier.ok(&Copy::whole("web-log", b""));
    let mut stream_id = 1;
    let mut raw = vm.raw();
    let mut ask = |log_type: &str, id: &str| {
        stream_id += 2;
        let payload = [bytes_field(1, log_type.as_bytes()), bytes_field(2, id.as_bytes())].concat();
        raw.call(stream_id, "grpc.AgentService", "GetDiagnosticData", &payload)
    };
    let script = "i=0; while [ $i -lt 500 ]; do echo 0123456789; i=$((i+1)); done > /dev/termination-log; printf end >> /dev/termination-log";
    let web = vm.start_with("web", &Run::shell(script), |spec| {
        add_mounts(
            spec,
            serde_json::json!([{
                "destination": "/dev/termination-log", "type": "bind", "source": format!("{SHARE}/web-log"),
                "options": ["bind"],
            }]),
        );
    });
    assert_eq!(web.wait(), 0);
    let reply = ask("termination_log", "web");
    assert_eq!(reply.code, 0, "{reply:?}");
    assert!(reply.payload.ends_with(b"0123456789\nend"), "{reply:?}");
    assert_eq!(reply.payload.len(), 4096 + 3, "a field's head and 4 KiB");
    web.remove();

    // In the root, by the name that Kubernetes gave; then a link in its place.
    let run = Run::shell(
        "echo bye > /last; ln -s /proc/1/environ /link; ln -s /run/kata-containers /out; exec sleep 600",
    );
    let path = |path: &str| {
        let annotation =
            ("io.kubernetes.container.terminationMessagePath".to_owned(), path.to_owned());
        move |spec: &mut oci_spec::runtime::Spec| {
            spec.set_annotations(Some([annotation].into()));
        }
    };
    for (name, file, said) in [
        ("one", "/last", Some("bye\n")),
        ("two", "/link", None),
        ("three", "/out", None),
        ("four", "/gone", None),
    ] {
        let container = vm.start_with(name, &run, path(file));
        let shell = container.exec("wait", &Run::shell("while [ ! -L /out ]; do sleep 0.1; done"));
        assert_eq!(shell.finish().code, 0);
        container.kill();
        let reply = ask("termination_log", name);
        match said {
            Some(said) => {
                assert!(reply.code == 0 && reply.payload.ends_with(said.as_bytes()), "{reply:?}")
            }
            None => assert!(reply.code != 0 && reply.message.contains(file), "{name}: {reply:?}"),
        }
        container.remove();
    }
    let reply = ask("termination_log", "nobody");
    assert!(reply.is(Code::NotFound) && reply.message.contains("not found"), "{reply:?}");
    assert!(ask("other_log", "web").is(Code::Unimplemented));
    vm.shutdown();
}

/// The mounts of the share are looked at, those that are gone on the host's side too, and nothing is changed by it.
#[test]
fn stale_mounts_of_the_share_are_looked_at() {
    let vm = boot();
    let volume = harness::volume::tmpfs(&format!("{SHARE}/tmp"), &[]);
    let web = vm.start("web", &Run::busybox(["sleep", "600"]).storage(volume));
    let reply = vm.raw().call(1, "grpc.AgentService", "RemoveStaleVirtiofsShareMounts", b"");
    assert_eq!((reply.code, reply.payload), (0, Vec::new()), "{}", reply.message);
    web.kill();
    web.remove();
    vm.shutdown();
}
