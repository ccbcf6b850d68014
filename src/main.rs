//! The `gatescribe` command: parses its arguments, runs, and exits with a code.

/// Gives memory back once sessions have ended, and keeps it in fewer pieces than the system's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    gatescribe::cli::run()
}
