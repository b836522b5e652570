use super::*;

fn hook(seconds: Option<u64>) -> Hook {
    let timeout = seconds.map(Duration::from_secs);
    Hook { path: c"/h".to_owned(), args: vec![c"h".to_owned()], env: Vec::new(), timeout }
}

fn hooks(create_container: Vec<Hook>) -> Hooks {
    Hooks {
        oci_version: "1.2.0".to_owned(),
        annotations: Default::default(),
        create_container,
        start_container: vec![hook(None)],
    }
}

#[test]
fn a_set_up_may_take_as_long_as_its_hooks() {
    assert_eq!(deadline(None), Some(SET_UP_DEADLINE));
    assert_eq!(deadline(Some(&hooks(Vec::new()))), Some(SET_UP_DEADLINE));
    let two = hooks(vec![hook(Some(5)), hook(Some(7))]);
    assert_eq!(deadline(Some(&two)), Some(SET_UP_DEADLINE + Duration::from_secs(12)));
    assert_eq!(deadline(Some(&hooks(vec![hook(Some(5)), hook(None)]))), None);
}

#[test]
fn a_bundle_is_where_the_root_is() {
    assert_eq!(bundle("/run/kata-containers/c/rootfs"), "/run/kata-containers/c");
    assert_eq!(bundle("/run/kata-containers/c/rootfs/"), "/run/kata-containers/c");
    assert_eq!(bundle("/rootfs"), "/");
}

#[test]
fn the_end_of_what_a_hook_says_is_kept() {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).unwrap();
    ioctl_fionbio(&ours, true).unwrap();
    let mut tail = Tail::default();
    assert!(tail.read(&ours).unwrap());
    assert_eq!(tail.text(), "");
    rustix::io::write(&theirs, &[b'x'; 5000]).unwrap();
    rustix::io::write(&theirs, b"end\n").unwrap();
    drop(theirs);
    assert!(!tail.read(&ours).unwrap(), "the end of the file");
    assert!(tail.0.len() == STDERR_MAX && tail.text().ends_with("xend"));
}
