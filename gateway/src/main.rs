use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Results pass through several threads, each of which frees what another has allocated.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    fleetgate::cli::main()
}
