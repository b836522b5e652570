use super::*;

const RDONLY: u64 = Attr::MOUNT_ATTR_RDONLY.bits() as u64;
const NOSUID: u64 = Attr::MOUNT_ATTR_NOSUID.bits() as u64;
const NOATIME: u64 = Attr::MOUNT_ATTR_NOATIME.bits() as u64;
const ATIME_MASK: u64 = ATIME.bits() as u64;

fn parse(options: &[&str]) -> MountOptions {
    MountOptions::parse(options.iter().copied()).unwrap()
}

#[test]
fn attributes_are_the_mounts_and_the_rest_is_the_filesystems() {
    let options =
        parse(&["nosuid", "ro", "noatime", "mode=755", "size=64k", "rprivate", "defaults"]);
    assert_eq!(options.attributes, MountAttr::new(RDONLY | NOSUID | NOATIME, ATIME_MASK));
    assert_eq!(options.data, ["mode=755", "size=64k"]);
    assert_eq!(options.propagation, [Propagation::PRIVATE | Propagation::REC]);
    assert_eq!(options.bind, None);
}

#[test]
fn the_later_of_two_options_wins() {
    assert_eq!(parse(&["ro", "rw"]).attributes, MountAttr::new(0, RDONLY));
    assert_eq!(parse(&["rw", "ro"]).attributes, MountAttr::new(RDONLY, 0));
    assert_eq!(parse(&["noatime", "relatime"]).attributes, MountAttr::new(0, ATIME_MASK));
    assert_eq!(parse(&["bind", "rbind"]).bind, Some(Extent::Recursive));
    assert_eq!(parse(&["rbind", "bind"]).bind, Some(Extent::Recursive));
}

#[test]
fn an_r_before_an_attribute_means_the_whole_tree() {
    let options = parse(&["rro", "rnosuid", "relatime"]);
    assert_eq!(options.recursive_attributes, MountAttr::new(RDONLY | NOSUID, 0));
    assert_eq!(options.attributes, MountAttr::new(0, ATIME_MASK));
    assert_eq!(parse(&["rrelatime"]).recursive_attributes, MountAttr::new(0, ATIME_MASK));
}

#[test]
fn an_option_of_the_spec_that_is_not_honoured_is_named() {
    for (option, _) in REFUSED {
        let err = MountOptions::parse([*option]).unwrap_err();
        assert_eq!(err.code(), Code::Unimplemented);
        assert!(err.message().starts_with(option), "{err}");
    }
}

/// The whole table "Linux mount options" of the OCI runtime-spec 1.2 is understood: none of it reaches a filesystem as
/// if it were the filesystem's own, which is what happens to a name that nobody knows.
#[test]
fn every_option_of_the_spec_is_understood() {
    let plain = [
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "iversion",
        "lazytime",
        "loud",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "rbind",
        "relatime",
        "remount",
        "ro",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "sync",
        "tmpcopyup",
        "unbindable",
        "idmap",
        "ridmap",
    ];
    let recursive = [
        "ratime",
        "rdev",
        "rdiratime",
        "rexec",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnorelatime",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "rrelatime",
        "rro",
        "rrw",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
    ];
    for option in plain.into_iter().chain(recursive) {
        assert_eq!(parse(&[option]).data, Vec::<String>::new(), "{option}");
    }
    for option in recursive {
        assert_ne!(parse(&[option]).recursive_attributes, MountAttr::default(), "{option}");
    }
    assert_eq!(parse(&["fastboot"]).data, ["fastboot"], "nobody knows it: the filesystem is asked");
}

#[test]
fn propagation_is_set_in_the_order_of_the_list() {
    let options = parse(&["rslave", "shared"]);
    assert_eq!(
        options.propagation,
        [Propagation::DOWNSTREAM | Propagation::REC, Propagation::SHARED]
    );
}

#[test]
fn an_option_that_cannot_be_is_found() {
    for bad in ["sync", "dirsync", "lazytime", "iversion", "tmpcopyup", "size=1"] {
        assert_eq!(parse(&["ro", bad]).not_of_bind(), Some(bad));
        assert_eq!(parse(&["ro", bad]).not_of_filesystem(FsType::Cgroup2), Some(bad));
    }
    for good in ["async", "nolazytime", "noiversion", "silent", "nomand", "idmap"] {
        assert_eq!(parse(&[good]).not_of_bind(), None);
        assert_eq!(parse(&[good]).not_of_filesystem(FsType::Sysfs), None);
    }
    for good in ["sync", "iversion", "tmpcopyup", "size=1"] {
        assert_eq!(parse(&[good]).not_of_filesystem(FsType::Tmpfs), None);
    }
    assert_eq!(parse(&["iversion"]).not_of_filesystem(FsType::Overlay), Some("iversion"));
}
