//! `gatescribe config`: is a configuration good, and what is in effect.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use super::sessions::time;
use super::{against_live, run_client};
use crate::config::{self, Config, ConfigErrors};

/// Arguments of `gatescribe config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what is wrong with a configuration: every mistake with its line and column
    #[command(after_help = "Examples: gatescribe config check config/gatescribe.toml\n          \
        gatescribe config check --against-live gatescribe.toml.new")]
    Check(Check),
    /// Print the configuration in effect, defaults filled in, without secrets
    #[command(after_help = "Example: gatescribe config show config/gatescribe.toml")]
    Show(File),
}

#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    file: File,
    /// Who would gain and lose access if the file came into force, and which live sessions would end. On the gateway's
    /// host; needs no secret
    #[arg(long)]
    against_live: bool,
    /// With --against-live: ask about this time, instead of now
    #[arg(long, value_name = "TIME", requires = "against_live", value_parser = time)]
    at: Option<Timestamp>,
    /// With --against-live: JSON instead of words
    #[arg(long, requires = "against_live")]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The file; left out: GATESCRIBE_CONFIG, ./config/gatescribe.toml, /etc/gatescribe/gatescribe.toml
    file: Option<PathBuf>,
    /// The same, as the other commands call it
    #[arg(long, value_name = "FILE", conflicts_with = "file", hide = true)]
    config: Option<PathBuf>,
}

impl File {
    fn find(&self) -> Result<PathBuf, ConfigErrors> {
        config::find(self.file.as_deref().or(self.config.as_deref()))
    }
}

/// Exits with 0 when the configuration is good (warnings are no failure), 2 when it is not, 1 when writing fails.
pub fn run(args: Args) -> ExitCode {
    let mut out = Vec::new();
    let done = match &args.command {
        Command::Check(Check { file, against_live: true, at, json }) => match file.find() {
            Ok(path) => return run_client(against_live::run(&path, *at, *json)),
            Err(errors) => Err(errors),
        },
        Command::Check(Check { file, .. }) => file.find().and_then(|path| check(&path, &mut out)),
        Command::Show(file) => file.find().and_then(|path| show(&path, &mut out)),
    };
    let code = match &done {
        Ok(()) => io::stdout().write_all(&out).map(|()| ExitCode::SUCCESS),
        Err(errors) => write!(io::stderr(), "{errors}").map(|()| ExitCode::from(2)),
    };
    code.unwrap_or(ExitCode::FAILURE)
}

fn check(path: &Path, out: &mut Vec<u8>) -> Result<(), ConfigErrors> {
    let config = Config::load(path)?;
    for warning in &config.warnings {
        out.extend(format!("{warning}\n").bytes());
    }
    out.extend(format!("{}: good: {}\n", path.display(), summary(&config)).bytes());
    Ok(())
}

fn show(path: &Path, out: &mut Vec<u8>) -> Result<(), ConfigErrors> {
    out.extend(config::show(path)?.bytes());
    Ok(())
}

fn summary(config: &Config) -> String {
    let count = |number: usize, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
    [
        count(config.sockets.len(), "socket", "sockets"),
        count(config.policies.rules().len(), "policy", "policies"),
        count(config.warnings.len(), "warning", "warnings"),
    ]
    .join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    const GOOD: &str = "[gateway]\ndomain = \"a.example.com\"\n[oidc]\nissuer = \"https://idp.example.com\"\n\
                        client_id = \"g\"\nclient_secret = \"file:secret\"\n";

    fn files() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gatescribe.toml");
        std::fs::write(&path, GOOD).unwrap();
        std::fs::write(dir.path().join("secret"), "hunter2").unwrap();
        (dir, path)
    }

    #[test]
    fn check_sums_up_and_warns() {
        let (_dir, path) = files();
        let mut out = Vec::new();
        check(&path, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let last = out.lines().last().unwrap();
        assert!(last.starts_with(&format!("{}: good: 0 sockets, 0 policies, ", path.display())), "{out}");
        assert!(out.contains(" warning: there is no [[socket]]") && !out.contains("hunter2"), "{out}");
    }

    #[test]
    fn show_is_toml_without_secrets() {
        let (_dir, path) = files();
        let mut out = Vec::new();
        show(&path, &mut out).unwrap();
        let table: toml::Table = String::from_utf8(out).unwrap().parse().unwrap();
        assert_eq!(table["oidc"]["client_secret"].as_str(), Some("file:secret"));
        assert_eq!(table["listen"]["ssh"].as_str(), Some("0.0.0.0:2222"));
    }

    #[test]
    fn exit_codes() {
        let (dir, path) = files();
        let run = |command: &str, file: &Path| {
            run(Cli::try_parse_from(["x".as_ref(), command.as_ref(), file.as_os_str()]).unwrap().args)
        };
        let code = |code: ExitCode| format!("{code:?}");
        assert_eq!(code(run("check", &path)), code(ExitCode::SUCCESS));
        assert_eq!(code(run("show", &dir.path().join("none"))), code(ExitCode::from(2)));
        std::fs::write(&path, "x = 1").unwrap();
        assert_eq!(code(run("check", &path)), code(ExitCode::from(2)));
        assert!(Cli::try_parse_from(["x", "chekc"]).is_err());
        let named = Cli::try_parse_from(["x".as_ref(), "check".as_ref(), "--config".as_ref(), path.as_os_str()]);
        assert_eq!(code(super::run(named.unwrap().args)), code(ExitCode::from(2)));
    }
}
