//! The binary: everything is in the library.

/// Freed memory goes back to the operating system sooner, and small allocations are faster, than with the default.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(logweir::cli::main());
}
