//! The seccomp profile of a container that asks for nothing.
//!
//! A list of what may be called, in the spirit of Docker's: what is not in it is EPERM. It leaves out what reaches the
//! kernel as a whole (modules, clocks, swap, kexec), what has been a way out again and again (keyrings, bpf,
//! userfaultfd, io_uring) and what takes a capability that the process has not: with CAP_SYS_ADMIN it may mount.
//!
//! Two calls are let through by their arguments. `clone` makes no namespaces without CAP_SYS_ADMIN, and `clone3`, whose
//! flags a filter cannot see, is ENOSYS, so that a C library falls back on `clone`. `socket` makes none of the families
//! from AF_VSOCK on, by which a container could reach the guest's agent.

use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

/// Whatever the capabilities.
const ALLOWED: &str = "\
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown \
    clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup \
    dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve \
    execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat \
    fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
    fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list \
    get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername \
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid \
    getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get \
    ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link \
    linkat listen listmount listxattr llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr \
    lsm_set_self_attr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat \
    mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease \
    process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink \
    readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 \
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity \
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid \
    setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt \
    setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat \
    statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime \
    times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write \
    writev";

/// With any of the capabilities.
const BY_CAPABILITY: [(&[Capability], &str); 14] = [
    (
        &[Capability::SysAdmin],
        "clone clone3 fanotify_init fsconfig fsmount fsopen fspick lsm_list_modules mount mount_setattr move_mount \
         open_tree quotactl quotactl_fd setdomainname sethostname setns umount2 unshare",
    ),
    (&[Capability::SysAdmin, Capability::Bpf], "bpf"),
    (&[Capability::SysAdmin, Capability::Perfmon], "perf_event_open"),
    (&[Capability::SysAdmin, Capability::Syslog], "syslog"),
    (&[Capability::DacReadSearch], "open_by_handle_at"),
    (&[Capability::SysBoot], "kexec_file_load kexec_load reboot"),
    (&[Capability::SysChroot], "chroot"),
    (&[Capability::SysModule], "delete_module finit_module init_module"),
    (&[Capability::SysNice], "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (&[Capability::SysPtrace], "kcmp pidfd_getfd process_madvise"),
    (&[Capability::SysRawio], "ioperm iopl"),
    (&[Capability::SysTime], "clock_settime settimeofday"),
    (&[Capability::SysPacct], "acct"),
    (&[Capability::SysTtyConfig], "vhangup"),
];

/// What personality(2) may be asked for: Linux, 32 bits, an old version's number, and which it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEW*` of clone(2), short of CLONE_NEWTIME, which it cannot take.
const NAMESPACES: u64 = 0x7e02_0000;

const AF_VSOCK: u64 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile for a process whose bounding set is `capabilities`. An i386 or x32 program is judged by it too.
pub fn default_seccomp(capabilities: &HashSet<Capability>) -> LinuxSeccomp {
    let gated = BY_CAPABILITY
        .iter()
        .filter(|(any, _)| any.iter().any(|capability| capabilities.contains(capability)))
        .map(|(_, names)| *names);
    let names = [ALLOWED].into_iter().chain(gated).flat_map(str::split_whitespace);
    let mut syscalls = vec![allow(names.map(str::to_owned).collect())];
    syscalls.extend(allow_if("socket", LinuxSeccompOperator::ScmpCmpLt, AF_VSOCK, 0));
    for personality in PERSONALITIES {
        let is_it = LinuxSeccompOperator::ScmpCmpEq;
        syscalls.extend(allow_if("personality", is_it, personality, 0));
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
        syscalls.extend(allow_if("clone", masked, NAMESPACES, 0));
        let mut clone3 = allow(vec!["clone3".to_owned()]);
        clone3.set_action(LinuxSeccompAction::ScmpActErrno).set_errno_ret(Some(ENOSYS));
        syscalls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]))
        .set_syscalls(Some(syscalls));
    profile
}

fn allow(names: Vec<String>) -> LinuxSyscall {
    let mut syscall = LinuxSyscall::default();
    syscall.set_names(names).set_action(LinuxSeccompAction::ScmpActAllow);
    syscall
}

/// A condition of the first argument. Without it there is no rule: what is not allowed is refused.
fn allow_if(
    name: &str,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: u64,
) -> Option<LinuxSyscall> {
    let argument = LinuxSeccompArgBuilder::default();
    let argument = argument.index(0_usize).op(op).value(value).value_two(value_two).build().ok()?;
    let mut syscall = allow(vec![name.to_owned()]);
    syscall.set_args(Some(vec![argument]));
    Some(syscall)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the first argument: operator and values, by name.
    fn conditions(profile: &LinuxSeccomp, name: &str) -> Vec<(LinuxSeccompOperator, u64, u64)> {
        let rules = profile.syscalls().iter().flatten();
        let arguments = rules
            .filter(|rule| rule.names().iter().any(|known| known == name))
            .flat_map(|rule| rule.args().clone().unwrap_or_default());
        arguments.map(|one| (one.op(), one.value(), one.value_two().unwrap())).collect()
    }

    fn allows(profile: &LinuxSeccomp, name: &str) -> bool {
        profile.syscalls().iter().flatten().any(|rule| {
            let is_allowed = rule.action() == LinuxSeccompAction::ScmpActAllow;
            is_allowed && rule.args().is_none() && rule.names().iter().any(|known| known == name)
        })
    }

    #[test]
    fn what_takes_a_capability_is_allowed_with_it_alone() {
        let none = default_seccomp(&HashSet::new());
        for (any, names) in BY_CAPABILITY {
            for capability in any {
                let profile = default_seccomp(&HashSet::from([*capability]));
                for name in names.split_whitespace() {
                    assert!(allows(&profile, name) && !allows(&none, name), "{capability} {name}");
                }
            }
        }
        for name in ["add_key", "keyctl", "userfaultfd", "io_uring_setup", "pivot_root", "swapon"] {
            let every = BY_CAPABILITY.iter().flat_map(|(any, _)| any.iter().copied()).collect();
            assert!(!allows(&default_seccomp(&every), name), "{name}");
        }
        assert!(allows(&none, "execve") && !allows(&none, "clone3"));
    }

    #[test]
    fn no_call_is_both_for_all_and_for_some() {
        let mut seen = HashSet::new();
        let names = ALLOWED.split_whitespace().chain(["clone", "clone3", "socket", "personality"]);
        assert!(names.clone().all(|name| seen.insert(name)), "a name is listed twice");
        let gated = BY_CAPABILITY.iter().flat_map(|(_, names)| names.split_whitespace());
        for name in gated.filter(|name| !name.starts_with("clone")) {
            assert!(!seen.contains(name), "{name} needs no capability");
        }
    }

    /// A filter compares 64 bits where the kernel looks at 32 of socket(2)'s family: what is above is refused too.
    #[test]
    fn namespaces_and_vsock_are_refused_by_argument() {
        let profile = default_seccomp(&HashSet::new());
        let socket = [(LinuxSeccompOperator::ScmpCmpLt, 40, 0)];
        assert_eq!(conditions(&profile, "socket"), socket);
        let clone = [(LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACES, 0)];
        assert_eq!(conditions(&profile, "clone"), clone);
        assert!(!allows(&profile, "socket") && !allows(&profile, "clone"));
        let with_namespaces = default_seccomp(&HashSet::from([Capability::SysAdmin]));
        assert!(conditions(&with_namespaces, "clone").is_empty());
        assert_eq!(conditions(&with_namespaces, "socket"), socket);
    }
}
