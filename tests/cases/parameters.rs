//! Words of the kernel's command line that are for init: honoured, said not to be, or refused by their names.

use harness::{PATIENCE, Vm, VmConfig};

/// What this guest does not do is said by its name in the log, and the guest comes up; what is not init's is no news.
#[test]
fn a_parameter_that_is_not_honoured_is_said_by_name() {
    let ours = ["agent.devmode", "agent.trace=true"];
    let console = ["agent.debug_console", "agent.debug_console_vport=1026"];
    let others = ["agent.log=warn", "psi=1", "systemd.unit=kata-containers.target"];
    let cmdline = ours.iter().chain(&others).chain(&console).map(|&word| word.to_owned()).collect();
    let vm = Vm::boot(&VmConfig { cmdline, ..VmConfig::default() });
    let log = vm.run("the log", vm.sandbox().log(0)).unwrap();
    let log = String::from_utf8(log.data).unwrap();
    for name in ["agent.devmode", "agent.trace"] {
        let line = format!("warn: kernel parameter {name}: not honoured");
        assert_eq!(log.lines().filter(|have| have.contains(&line)).count(), 1, "{name}: {log}");
    }
    assert_eq!(log.matches("not honoured").count(), ours.len(), "{log}");
    assert!(log.contains("agent.debug_console: the image has no /bin/sh"), "{log}");
    vm.shutdown();
}

/// A value that cannot be stops the boot, and the console has the parameter's name.
#[test]
fn a_bad_value_stops_the_boot_by_name() {
    for word in ["hyperstart.output_ring=1", "agent.log_vport=x", "agent.hotplug_timeout=1000000"] {
        let machine = VmConfig { cmdline: vec![word.to_owned()], ..VmConfig::default() }.machine();
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let err = runtime.block_on(async {
            let vm = hyperstart_vmm::Vm::launch(&machine, directory.path()).await.unwrap();
            vm.ready(PATIENCE).await.unwrap_err()
        });
        let (name, _) = word.split_once('=').unwrap();
        assert!(err.to_string().contains(&format!("kernel parameter {name}: bad value")), "{err}");
    }
}
