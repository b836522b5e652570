use super::*;

const RDONLY: u64 = Attr::MOUNT_ATTR_RDONLY.bits() as u64;
const NOSUID: u64 = Attr::MOUNT_ATTR_NOSUID.bits() as u64;
const NOATIME: u64 = Attr::MOUNT_ATTR_NOATIME.bits() as u64;
const ATIME_MASK: u64 = ATIME.bits() as u64;

fn parse(options: &[&str]) -> MountOptions {
    MountOptions::parse(options.iter().copied()).unwrap()
}

fn filesystem(destination: &str, fstype: FsType) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Filesystem { fstype, source: fstype.name().to_owned() },
        options: MountOptions::default(),
    }
}

fn bind(destination: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Bind { path: "/run/x".to_owned(), recursive: true },
        options: MountOptions::default(),
    }
}

fn destinations(plan: &[Mount]) -> Vec<&str> {
    plan.iter().map(|mount| mount.destination.as_str()).collect()
}

#[test]
fn attributes_are_the_mounts_and_the_rest_is_the_filesystems() {
    let options =
        parse(&["nosuid", "ro", "noatime", "mode=755", "size=64k", "rprivate", "defaults"]);
    assert_eq!(options.attributes, MountAttr::new(RDONLY | NOSUID | NOATIME, ATIME_MASK));
    assert_eq!(options.data, ["mode=755", "size=64k"]);
    assert_eq!(options.propagation, Some(Propagation::PRIVATE | Propagation::REC));
    assert_eq!(options.bind, None);
}

#[test]
fn the_later_of_two_options_wins() {
    assert_eq!(parse(&["ro", "rw"]).attributes, MountAttr::new(0, RDONLY));
    assert_eq!(parse(&["rw", "ro"]).attributes, MountAttr::new(RDONLY, 0));
    assert_eq!(parse(&["noatime", "relatime"]).attributes, MountAttr::new(0, ATIME_MASK));
    assert_eq!(parse(&["bind", "rbind"]).bind, Some(Bind::Recursive));
    assert_eq!(parse(&["rbind", "bind"]).bind, Some(Bind::Recursive));
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
    let err = MountOptions::parse(["idmap"]).unwrap_err();
    assert_eq!(err.code(), Code::Unimplemented);
    assert!(err.message().contains("idmap"));
}

#[test]
fn a_bare_spec_gets_the_default_filesystems() {
    let plan = plan(&[]).unwrap();
    assert_eq!(
        destinations(&plan),
        ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"]
    );
}

#[test]
fn what_the_spec_lists_is_not_given_twice() {
    let listed =
        [filesystem("/proc/", FsType::Proc), filesystem("/dev", FsType::Tmpfs), bind("/dev/shm")];
    let plan = plan(&listed).unwrap();
    assert_eq!(
        destinations(&plan),
        ["/sys", "/proc/", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"],
        "the default mounts below the spec's /dev come after it"
    );
}

#[test]
fn a_bound_dev_is_left_as_it_is() {
    let listed = [bind("/dev")];
    assert_eq!(destinations(&plan(&listed).unwrap()), ["/proc", "/sys", "/dev"]);
    assert!(!makes_devices(&listed));
    assert!(makes_devices(&[]));
}

#[test]
fn nothing_but_proc_covers_proc() {
    for destination in
        ["/proc", "/proc/", "//proc/.", "proc", "/proc/self", "/proc/sys/kernel", "/proc/kcore"]
    {
        assert!(plan(&[bind(destination)]).is_err(), "{destination}");
        assert!(plan(&[filesystem(destination, FsType::Tmpfs)]).is_err(), "{destination}");
    }
    for destination in ["/proc/meminfo", "/proc2", "/process/x"] {
        assert!(plan(&[bind(destination)]).is_ok(), "{destination}");
    }
    assert!(plan(&[filesystem("/proc", FsType::Proc)]).is_ok());
    assert!(plan(&[filesystem("/proc/sys", FsType::Proc)]).is_err());
}

#[test]
fn a_path_is_cleaned_without_guessing_at_links() {
    assert_eq!(clean("a//b/./c/"), "/a/b/c");
    assert_eq!(clean("/"), "/");
    assert_eq!(clean(""), "/");
    assert_eq!(clean("/a/../b"), "/a/../b");
}
