//! The binary: everything is in the library.

/// Freed memory goes back to the operating system sooner, and small allocations are faster, than with the default.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Views are planned again while the server starts, and the stack of the first thread is as large as the shell says.
    let working = std::thread::Builder::new().stack_size(logweir::task::STACK).spawn(logweir::cli::main);
    let code = working.ok().and_then(|thread| thread.join().ok());
    // A panic has told by itself why.
    std::process::exit(code.unwrap_or(101));
}
