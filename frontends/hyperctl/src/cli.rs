//! The command line: what commands there are, in the order in which a new user needs them. Each command's arguments
//! are declared, and its work is done, in its own file below `commands`.

use clap::{Parser, Subcommand};

use crate::commands::{
    attach, boot_receipt, console, cp, events, exec, host, image, inspect, kill, logs, pause, ps,
    rm, run, stats, stop, top, unpause, update, volume, wait,
};
use crate::error::Result;

const ABOUT: &str = "Run containers, each in a virtual machine of its own";

const EXAMPLES: &str = "\
Examples:
  hyperctl run -t busybox echo helloworld        run a command, see its output
  hyperctl run -it --rm busybox sh               a shell of your own
  hyperctl pull HOST:PORT/NAME:TAG               an image from a registry
  hyperctl run -d --name web busybox sleep 1000  in the background
  hyperctl run --rm --memory 64m --cpus 0.5 busybox COMMAND   within limits; the VM is made to fit
  hyperctl run --rm -v ./src:/src -v cache:/cache busybox ls /src   a directory of this host, and a volume
  hyperctl exec -t web uname -r                  one more process in it
  hyperctl cp web:/etc/passwd .                  files out of it, or into it
  hyperctl run --pod web -it busybox sh          a further container in that pod
  hyperctl attach web                            in front of it again; ctrl-p ctrl-q leaves it to itself
  hyperctl logs -f --tail 10 web                 what it says, from its last ten lines on
  hyperctl stats                                 what all pods use, drawn anew each second
  hyperctl events --since 10m web                what has happened in it, and what happens
  hyperctl update --memory 96m web               other limits, while it runs
  hyperctl stop web && hyperctl wait web && hyperctl rm web

Exit codes:
  the container's own; 125 when hyperctl, the VM or the guest failed; 126 when the command cannot be
  executed, 127 when it does not exist; 128 + n when signal n ended it

Environment:
  HYPERSTART_STATE_DIR  where pods live [default: /run/hyperstart, or $XDG_RUNTIME_DIR/hyperstart]
  HYPERSTART_STORE_DIR  where imported images are [default: /var/lib/hyperstart/images, or ~/.local/share/hyperstart/images]
  HYPERSTART_VOLUME_DIR where named volumes are [default: /var/lib/hyperstart/volumes, or ~/.local/share/…]
  HYPERSTART_GUEST_DIR  where kernel and images are [default: beside hyperctl]
  HYPERSTART_ACCEL      kvm or tcg [default: what works here]
  HYPERSTART_QEMU       QEMU's binary [default: qemu-system-x86_64]
  HYPERSTART_LOG        error, warn, info or debug [default: warn]";

#[derive(Debug, Parser)]
#[command(name = "hyperctl", version, about = ABOUT, after_help = EXAMPLES, disable_help_flag = true)]
pub struct Cli {
    // One form of help: the long one of clap's spreads over three screens.
    /// Print help
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::Args>),
    Exec(exec::Args),
    Attach(attach::Args),
    Cp(cp::Args),
    Ps(ps::Args),
    Stats(stats::Args),
    Top(top::Args),
    Events(events::Args),
    Logs(logs::Args),
    Stop(stop::Args),
    Kill(kill::Args),
    Wait(wait::Args),
    Pause(pause::Args),
    Unpause(unpause::Args),
    Update(update::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    Console(console::Args),
    BootReceipt(boot_receipt::Args),
    Image(image::Args),
    Pull(image::pull::Args),
    Images(image::ls::Args),
    Volume(volume::Args),
    Host(host::Args),
}

impl Command {
    /// Runs the command; the value is hyperctl's exit code.
    pub async fn run(self) -> Result<u8> {
        match self {
            Command::Run(args) => run::run(*args).await,
            Command::Exec(args) => exec::run(args).await,
            Command::Attach(args) => attach::run(args).await,
            Command::Cp(args) => cp::run(args).await,
            Command::Ps(args) => ps::run(&args).await,
            Command::Stats(args) => stats::run(args).await,
            Command::Top(args) => top::run(args).await,
            Command::Events(args) => events::run(args).await,
            Command::Logs(args) => logs::run(args).await,
            Command::Stop(args) => stop::run(args).await,
            Command::Kill(args) => kill::run(args).await,
            Command::Wait(args) => wait::run(args).await,
            Command::Pause(args) => pause::run(args).await,
            Command::Unpause(args) => unpause::run(args).await,
            Command::Update(args) => update::run(args).await,
            Command::Rm(args) => rm::run(args).await,
            Command::Inspect(args) => inspect::run(&args).await,
            Command::Console(args) => console::run(args).await,
            Command::BootReceipt(args) => boot_receipt::run(args).await,
            Command::Image(args) => image::run(args).await,
            Command::Pull(args) => image::pull::run(args).await,
            Command::Images(args) => image::ls::run(&args),
            Command::Volume(args) => volume::run(&args),
            Command::Host(args) => host::run(args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::flags::user_namespace::Mode;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn run_args(words: &[&str]) -> run::Args {
        let words = ["hyperctl", "run"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_after_the_image_is_the_command() {
        let args = run_args(&["-t", "busybox", "ls", "-t", "--rm", "--", "-x"]);
        assert!(args.tty && !args.rm);
        assert_eq!(args.image_and_command, ["busybox", "ls", "-t", "--rm", "--", "-x"]);
    }

    #[test]
    fn short_flags_can_be_joined() {
        let args = run_args(&["-itd", "-e", "A=1", "-eB=2", "busybox"]);
        assert!(args.tty && args.interactive && args.detach);
        assert_eq!(args.process.env, ["A=1", "B=2"]);
    }

    #[test]
    fn an_unknown_flag_before_the_image_is_an_error_and_an_image_is_needed() {
        assert!(Cli::try_parse_from(["hyperctl", "run", "--bogus", "busybox"]).is_err());
        assert!(Cli::try_parse_from(["hyperctl", "run"]).is_err());
        assert!(Cli::try_parse_from(["hyperctl", "run", "--bundle", "/b"]).is_ok());
    }

    #[test]
    fn a_user_namespace_is_of_one_of_three_kinds() {
        for (words, mode) in [
            (&["busybox"][..], Mode::Auto),
            (&["--userns=auto", "busybox"], Mode::Auto),
            (&["--userns", "host", "busybox"], Mode::Host),
            (&["--pod", "web", "--userns=private", "busybox"], Mode::Private),
        ] {
            assert_eq!(run_args(words).container.user_namespace.userns, mode, "{words:?}");
        }
        assert!(Cli::try_parse_from(["hyperctl", "run", "--userns=keep-id", "busybox"]).is_err());
    }

    #[test]
    fn a_user_namespace_that_cannot_be_is_refused_before_anything_is_looked_for() {
        let refused = |words: &[&str]| run_args(words).work().err().unwrap().to_string();
        let bundle = refused(&["--userns=private", "--bundle", "/nonexistent"]);
        assert!(bundle.contains("--userns=private: not with --bundle"), "{bundle}");
        let privileged = refused(&["--userns=private", "--privileged", "nonexistent"]);
        assert!(privileged.contains("--userns=private: not with --privileged"), "{privileged}");
        for mode in ["--userns=host", "--userns=auto"] {
            let bundle = refused(&[mode, "--bundle", "/nonexistent"]);
            assert!(!bundle.contains("userns"), "it fails later, of another cause: {bundle}");
        }
    }

    #[test]
    fn who_sees_whose_processes_is_said_when_the_pod_begins() {
        assert!(run_args(&["--share-pid", "busybox"]).share_pid);
        let words = ["hyperctl", "run", "--share-pid", "--pod", "web", "busybox"];
        assert!(Cli::try_parse_from(words).is_err());
    }

    #[test]
    fn exec_takes_the_pods_name_and_a_command() {
        let words = ["hyperctl", "exec", "-t", "pod1", "ls", "-l"];
        let Command::Exec(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!((args.pod.as_str(), args.command), ("pod1", vec!["ls".into(), "-l".into()]));
        assert!(Cli::try_parse_from(["hyperctl", "exec", "pod1"]).is_err());
    }
}
