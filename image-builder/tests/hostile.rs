//! Archives made to do harm, and broken ones: each is refused with a message that names the entry and the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test that fails says where"
)]

mod support;

use image_builder::ErrorKind;
use image_builder::container::{Format, Request};
use image_builder::limits::Limits;
use std::process::Command;
use support::layout::{self, Layout, digest, gzip, zstd};
use support::tar::{Head, Tar, header, record, seal};
use support::{build, refusal, request, rootfs};

#[test]
fn a_path_cannot_climb() {
    for path in ["../evil", "a/../../evil", "a/..", "./../x"] {
        let message = refusal(&Tar::new().file(path, b"x").finish());
        assert!(message.contains(&format!("{path:?}: it climbs")), "{message}");
    }
}

#[test]
fn a_path_cannot_be_absolute() {
    let message = refusal(&Tar::new().file("/etc/passwd", b"x").finish());
    assert!(message.contains("\"/etc/passwd\": it is absolute"), "{message}");
    let long = Tar::new().pax(&[("path", b"/etc/shadow")]).file("innocent", b"x").finish();
    assert!(refusal(&long).contains("\"/etc/shadow\": it is absolute"));
}

#[test]
fn a_path_cannot_go_through_a_link() {
    let tar = Tar::new().symlink("out", "/etc").file("out/passwd", b"x");
    let message = refusal(&tar.finish());
    assert!(
        message.contains("\"out/passwd\": it goes through \"out\", a symbolic link"),
        "{message}"
    );
    let tar = Tar::new().file("f", b"x").file("f/g", b"x");
    assert!(refusal(&tar.finish()).contains("not a directory"));
}

#[test]
fn a_hard_link_cannot_lead_out() {
    for target in ["../etc/passwd", "/etc/passwd", "nothing", "d"] {
        let message = refusal(&Tar::new().dir("d").hard("l", target).finish());
        assert!(message.contains(&format!("\"l\": hard link to {target:?}")), "{message}");
    }
    let through = Tar::new().symlink("out", "/etc").hard("l", "out/passwd");
    assert!(refusal(&through.finish()).contains("there is no such file"));
}

#[test]
fn a_name_cannot_come_twice() {
    let tar = Tar::new().file("a", b"1").file("./a", b"2");
    let message = refusal(&tar.finish());
    assert!(message.contains("\"./a\": a second entry of this name"), "{message}");
    for kind in [
        Tar::new().symlink("a", "b"),
        Tar::new().dir("a"),
        Tar::new().file("x", b"").hard("a", "x"),
    ] {
        assert!(refusal(&kind.file("a", b"2").finish()).contains("a second entry"));
    }
}

#[test]
fn names_that_no_file_system_has_are_refused() {
    let long = [b'n'; 256];
    let tar = |path: &[u8]| Tar::new().pax(&[("path", path)]).file("x", b"").finish();
    assert!(refusal(&tar(&long)).contains("longer than 255"));
    assert!(refusal(&tar(b"a\0b")).contains("zero byte"));
    assert!(refusal(&tar("d/".repeat(3000).as_bytes())).contains("longer than 4095"));
}

#[test]
fn a_message_cannot_write_to_the_terminal() {
    let message = refusal(&Tar::new().file("../\x1b]0;evil\x07", b"").finish());
    assert!(!message.contains('\x1b') && !message.contains('\x07'), "{message:?}");
}

#[test]
fn extension_headers_are_bounded() {
    let huge = Head { path: b"pax", kind: b'x', size: 1 << 40, ..Head::default() };
    let message = refusal(&Tar::new().entry(&huge, b"").finish());
    assert!(message.contains("an extension header of 1099511627776 bytes"), "{message}");
    let name = Head { path: b"././@LongLink", kind: b'L', size: u64::MAX / 2, ..Head::default() };
    assert!(refusal(&Tar::new().entry(&name, b"").finish()).contains("an extension header of"));
    let row = (0..20).fold(Tar::new(), |tar, _| tar.pax(&[("comment", b"x")]));
    assert!(refusal(&row.file("x", b"").finish()).contains("too many extension headers"));
}

#[test]
fn an_archive_that_stops_in_the_middle_is_refused() {
    let whole = Tar::new().dir("d").pax(&[("comment", b"x")]).file("d/f", &[7; 3000]).finish();
    for cut in (1..whole.len() - 1024).step_by(73).chain([1024, 1536, 2048, 2560]) {
        assert!(rootfs(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert!(refusal(&whole[..4000]).contains("cut off"));
}

#[test]
fn headers_are_checked() {
    let mut block = header(&Head { path: b"f", ..Head::default() });
    block[0] = b'g';
    assert!(refusal(&block).contains("checksum is wrong"));
    let unknown = Head { path: b"f", kind: b'V', ..Head::default() };
    assert!(refusal(&Tar::new().entry(&unknown, b"").finish()).contains("\"f\": unknown type 'V'"));
    let mut block = header(&Head { path: b"f", ..Head::default() });
    block[108..116].copy_from_slice(b"99999999");
    seal(&mut block);
    assert!(refusal(&block).contains("\"f\": its user id is not a number"));
    let behind = Tar::new().raw(&[0; 512]).file("f", b"").finish();
    assert!(refusal(&behind).contains("data behind its end mark"));
    assert!(refusal(&[b'x'; 2048]).contains("not a tar header"));
}

#[test]
fn sparse_files_cannot_lie_about_their_size() {
    let map = |records: &[(&str, &[u8])]| Tar::new().pax(records).file("s", b"abcd").finish();
    let size = ("GNU.sparse.realsize", &b"10"[..]);
    assert!(refusal(&map(&[size, ("GNU.sparse.map", b"0,4,8,4")])).contains("leaves the file"));
    assert!(
        refusal(&map(&[size, ("GNU.sparse.map", b"0,3")]))
            .contains("speaks of 3 bytes, 4 are stored")
    );
    assert!(refusal(&map(&[size, ("GNU.sparse.offset", b"0")])).contains("dialect"));
    let huge = ("GNU.sparse.realsize", &b"1000000000000000"[..]);
    assert!(refusal(&map(&[huge, ("GNU.sparse.map", b"0,4")])).contains("--max-size"));
    let data = [b"65537\n".to_vec(), vec![0; 506]].concat();
    let records = [record("GNU.sparse.major", b"1"), record("GNU.sparse.realsize", b"10")].concat();
    let head = Head { path: b"p", kind: b'x', size: records.len() as u64, ..Head::default() };
    let tar = Tar::new().entry(&head, &records).file("s", &data).finish();
    assert!(refusal(&tar).contains("more than 65536 stretches"));
}

#[test]
fn devices_outside_of_linux_or_of_overlayfs_are_refused() {
    assert!(
        refusal(&Tar::new().char_device("w", (0, 0)).finish())
            .contains("\"w\": character device 0:0")
    );
    assert!(
        refusal(&Tar::new().char_device("w", (4096, 0)).finish()).contains("\"w\": device 4096:0")
    );
}

#[test]
fn bombs_stop_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.tar");
    let limits = Limits { content: 1 << 20, entries: 100, ..Limits::default() };
    let build = |archive: &[u8]| {
        std::fs::write(&path, archive).unwrap();
        let request = Request { format: Format::RootfsArchive, limits, ..request(&path) };
        let err = build(&request).map(drop).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::TooLarge, "{err}");
        err.to_string()
    };
    let big = Tar::new().file("big", &vec![0; 2 << 20]).finish();
    for packed in [big.clone(), gzip(&big), zstd(&big)] {
        assert!(build(&packed).contains("\"big\": more than 1.0 MiB of content"));
    }
    let many = (0..200).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b"")).finish();
    assert!(build(&many).contains("\"f100\": more than 100 files"));
    // a gzip stream that goes on behind the end of the archive
    let trailing = [Tar::new().file("f", b"").finish(), vec![0; 8 << 20]].concat();
    assert!(build(&gzip(&trailing)).contains("content"));
}

#[test]
fn attributes_that_overlayfs_believes_are_left_out() {
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.com.apple.provenance", b"x"),
        ("SCHILY.xattr.user.kept", b"y"),
    ];
    let files = rootfs(&Tar::new().pax(&records).file("f", b"").finish()).unwrap();
    assert_eq!(files["f"].xattrs.keys().collect::<Vec<_>>(), ["user.kept"]);
}

fn layout_refusal(layout: &Layout) -> String {
    let dir = tempfile::tempdir().unwrap();
    layout.write(dir.path());
    build(&request(dir.path())).map(drop).unwrap_err().to_string()
}

fn one_layer() -> (Layout, Vec<u8>) {
    let tar = Tar::new().file("f", b"hello").finish();
    let mut layout = Layout::default();
    let manifest = layout.image("amd64", &[(gzip(&tar), tar.clone())]);
    (layout.index(&[manifest]), gzip(&tar))
}

#[test]
fn a_changed_blob_is_found_by_its_digest() {
    let (layout, _) = one_layer();
    for (path, bytes) in layout.0.iter().filter(|(path, _)| path.starts_with("blobs/")) {
        let mut changed = layout.clone();
        let mut bytes = bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        changed.0.insert(path.clone(), bytes);
        let message = layout_refusal(&changed);
        let asked = path.strip_prefix("blobs/sha256/").unwrap();
        assert!(
            message.contains(asked) && message.contains("its bytes have the digest"),
            "{message}"
        );
    }
}

#[test]
fn a_truncated_or_missing_blob_is_refused() {
    let (layout, layer) = one_layer();
    for (path, bytes) in layout.0.iter().filter(|(path, _)| path.starts_with("blobs/")) {
        let mut changed = layout.clone();
        changed.0.insert(path.clone(), bytes[..bytes.len() - 1].to_vec());
        assert!(layout_refusal(&changed).contains("were promised"));
        changed.0.remove(path);
        assert!(layout_refusal(&changed).contains(path.as_str()));
    }
    let archive = layout.archive();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, &archive[..archive.len() - 1024 - layer.len()]).unwrap();
    assert!(build(&request(&path)).map(drop).unwrap_err().to_string().contains("cut off"));
}

#[test]
fn a_wrong_diff_id_is_refused() {
    let tar = Tar::new().file("f", b"hello").finish();
    let mut layout = Layout::default();
    let manifest = layout.image("amd64", &[(gzip(&tar), b"another".to_vec())]);
    let message = layout_refusal(&layout.index(&[manifest]));
    assert!(message.contains(&format!("have the digest {}", digest(&tar))), "{message}");
}

#[test]
fn digests_cannot_be_paths() {
    for bad in ["sha256:../../../etc/passwd", "../etc/passwd", "sha512:00", "sha256:"] {
        let manifest = serde_json::json!({"mediaType": layout::MANIFEST, "digest": bad, "size": 1});
        let message = layout_refusal(&Layout::default().index(&[manifest]));
        assert!(message.contains("digest \""), "{message}");
    }
}

#[test]
fn counts_that_do_not_match_are_refused() {
    let tar = Tar::new().finish();
    let mut layout = Layout::default();
    let config =
        serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": []}});
    let config = layout.json(layout::CONFIG, &config);
    let layer = layout.blob(layout::LAYER, &tar);
    let manifest =
        layout.json(layout::MANIFEST, &serde_json::json!({"config": config, "layers": [layer]}));
    assert!(layout_refusal(&layout.index(&[manifest])).contains("1 layers, but 0"));
}

#[test]
fn indexes_in_a_circle_or_too_deep_are_refused() {
    let mut layout = Layout::default();
    let mut index = layout.json(layout::INDEX, &serde_json::json!({"manifests": []}));
    for _ in 0..10 {
        index = layout.json(layout::INDEX, &serde_json::json!({"manifests": [index]}));
    }
    assert!(layout_refusal(&layout.index(&[index])).contains("too deep"));
}

#[test]
fn docker_archives_are_checked() {
    let refused = |archive: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        std::fs::write(&path, archive).unwrap();
        build(&request(&path)).map(drop).unwrap_err().to_string()
    };
    let layer = Tar::new().file("f", b"hello").finish();
    let good = layout::docker(std::slice::from_ref(&layer)).finish();
    let mut changed = good.clone();
    let at = changed.windows(5).position(|bytes| bytes == b"hello").unwrap();
    changed[at] ^= 1;
    assert!(refused(&changed).contains("its bytes have the digest"));
    let mut changed = good.clone();
    let at = changed.windows(7).position(|bytes| bytes == b"\"linux\"").unwrap();
    changed[at + 1] = b'L';
    assert!(refused(&changed).contains("configuration sha256:"));
    let out =
        layout::docker(std::slice::from_ref(&layer)).symlink("out", "../../etc/passwd").finish();
    assert!(refused(&out).contains("outside the archive"));
    let twice = layout::docker(std::slice::from_ref(&layer)).file("manifest.json", b"[]").finish();
    assert!(refused(&twice).contains("\"manifest.json\": a second entry"));
    let escape = br#"[{"Config": "../../etc/passwd", "Layers": []}]"#;
    assert!(refused(&Tar::new().file("manifest.json", escape).finish()).contains("it climbs"));
    assert!(refused(&Tar::new().file("f", b"").finish()).contains("--format rootfs"));
    assert!(refused(&good[..good.len() - 1500]).contains("cut off"));
}

/// The program says what was wrong and leaves no file, neither the image nor a temporary one.
#[test]
fn a_refused_source_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("evil.tar");
    std::fs::write(&source, Tar::new().file("../evil", b"x").finish()).unwrap();
    let out = dir.path().join("out");
    let run = Command::new(env!("CARGO_BIN_EXE_image-builder"))
        .args(["container", "--format", "rootfs", "--from"])
        .arg(&source)
        .arg("--output")
        .arg(out.join("image.erofs"))
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(
        !run.status.success() && said.contains("evil.tar") && said.contains("it climbs"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
}

/// Whatever bytes change in an archive: an answer, never a panic, never more than the limits.
#[test]
fn a_thousand_broken_archives_are_survived() {
    let whole = Tar::new()
        .dir("d")
        .pax(&[("path", b"long"), ("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
        .file("x", &[7; 700])
        .hard("h", "long")
        .pax(&[("GNU.sparse.realsize", b"10"), ("GNU.sparse.map", b"0,2,8,2")])
        .file("s", b"abcd")
        .symlink("l", "d/x")
        .char_device("n", (1, 3))
        .file("d/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .finish();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.tar");
    let limits = Limits { content: 1 << 20, entries: 1000, ..Limits::default() };
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..1000 {
        let mut bytes = whole.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = [0, b'/', b'.', b'7', 0x80, 0xff, b'\n', b'='][random(8)];
            let block = &mut bytes.as_chunks_mut::<512>().0[at / 512];
            if random(4) > 0 && block[257..262] == *b"ustar" {
                seal(block);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        let request = Request { format: Format::RootfsArchive, limits, ..request(&path) };
        match image_builder::container::build(
            &request,
            dir.path(),
            &image_builder::progress::Silent,
        ) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 50 && refused > 50, "{accepted} accepted, {refused} refused");
}
