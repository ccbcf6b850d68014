//! The `gatescribe` command: parses its arguments, runs, and exits with a code.

fn main() -> std::process::ExitCode {
    gatescribe::cli::run()
}
