//! The `taskd` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    taskd::cli::main()
}
