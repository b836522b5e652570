use super::*;
use crate::container::mount_options::Extent;

fn filesystem(destination: &str, fstype: FsType) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Filesystem { fstype, source: fstype.name().to_owned() },
        options: MountOptions::default(),
        id_map: None,
    }
}

fn bind(destination: &str) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: MountSource::Bind { path: "/run/x".to_owned(), extent: Extent::Recursive },
        options: MountOptions::default(),
        id_map: None,
    }
}

fn destinations(plan: &[Mount]) -> Vec<&str> {
    plan.iter().map(|mount| mount.destination.as_str()).collect()
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

#[test]
fn nothing_is_mounted_below_a_mount_that_is_shared_with_the_guest() {
    let mut shared = bind("/v");
    shared.options.propagation = vec![Propagation::SHARED];
    let err = plan(&[shared.clone(), filesystem("//v/./x", FsType::Tmpfs)]).unwrap_err();
    assert!(err.message().contains("\"/v\" is shared"), "{err}");
    assert!(plan(&[filesystem("/v/x", FsType::Tmpfs), shared.clone()]).is_ok(), "covered by it");
    assert!(plan(&[shared, filesystem("/vx", FsType::Tmpfs)]).is_ok());
    assert!(plan(&[bind("/v"), filesystem("/v/x", FsType::Tmpfs)]).is_ok());
}
