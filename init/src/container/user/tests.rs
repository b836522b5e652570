use super::*;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
1000:x:0:0:not so:/evil:/bin/sh
broken line
web:x:33:34:web:/srv/web:/bin/false
minus:x:4294967295:0::/:/bin/sh
";
const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:root,web\nlog:x:5:web\n";

fn look(name: &str) -> Result<Credentials> {
    look_up(name, PASSWD, GROUP, &[7])
}

fn credentials(uid: u32, gid: u32, groups: &[u32], home: &str) -> Credentials {
    Credentials { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
}

#[test]
fn a_name_is_looked_up_with_its_groups() {
    assert_eq!(look("web").unwrap(), credentials(33, 34, &[7, 4, 5], "/srv/web"));
    assert_eq!(look("web:adm").unwrap(), credentials(33, 4, &[7], "/srv/web"));
    assert_eq!(look("web:9").unwrap(), credentials(33, 9, &[7], "/srv/web"));
}

/// CVE-2016-3697: the image calls a root user "1000".
#[test]
fn digits_are_an_id_and_never_a_name() {
    assert_eq!(look("1000").unwrap(), credentials(1000, 0, &[7], "/"));
    assert_eq!(look("33").unwrap(), credentials(33, 34, &[7, 4, 5], "/srv/web"));
    assert_eq!(look("5:5").unwrap(), credentials(5, 5, &[7], "/"));
}

#[test]
fn who_is_not_there_is_not_found() {
    for (name, message) in [
        ("nobody", "user \"nobody\": no such user in /etc/passwd"),
        ("web:none", "group \"none\": no such group in /etc/group"),
        ("", "user \"\": no such user in /etc/passwd"),
        ("minus", "user \"minus\": no such user in /etc/passwd"),
        ("4294967295", "user \"4294967295\": no such user in /etc/passwd"),
        ("+5", "user \"+5\": no such user in /etc/passwd"),
    ] {
        let err = look(name).unwrap_err();
        assert_eq!((err.code(), err.message()), (Code::NotFound, message));
    }
}

#[test]
fn a_capability_has_its_kernel_number() {
    for (name, number) in
        [("CAP_CHOWN", 0), ("CAP_SYS_ADMIN", 21), ("CAP_MKNOD", 27), ("CAP_CHECKPOINT_RESTORE", 40)]
    {
        assert_eq!(capability_named(name).unwrap().bits(), 1 << number, "{name}");
    }
    for name in ["CHOWN", "CAP_chown", "CAP_", "CAP_FOO", ""] {
        assert!(capability_named(name).is_none(), "{name}");
    }
}

#[test]
fn a_set_is_gone_through_one_by_one() {
    let set = CapabilitySet::CHOWN | CapabilitySet::MKNOD;
    assert_eq!(each(set).collect::<Vec<_>>(), [CapabilitySet::CHOWN, CapabilitySet::MKNOD]);
}
