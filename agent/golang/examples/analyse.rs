//! What the analysis finds in a program, and what that takes: `cargo run --release -p spanwise-golang --example analyse -- FILE`.

use std::path::Path;

use spanwise_golang::{Binary, Runtime};

const NAMES: [&str; 4] = [
    "runtime.newproc1",
    "crypto/tls.(*halfConn).encrypt",
    "net/http.(*http2serverConn).runHandler",
    "google.golang.org/grpc.(*Server).handleStream",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let debug = std::env::args().any(|argument| argument == "--debug-information");
    for path in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let binary = Binary::open(Path::new(&path))?;
        println!("{path}: {}, {} modules", binary.info.compiler, binary.info.modules.len());
        println!("  functions: {:?}", binary.functions());
        match Runtime::of(&binary) {
            Ok(runtime) => println!("  goid at {}, parent at {:?}", runtime.goid, runtime.parent_goid),
            Err(unknown) => println!("  {unknown}"),
        }
        for (name, found) in binary.find(&NAMES) {
            println!("  {name}: {found:x?}");
        }
        if debug {
            let members = binary.debug_members(&["runtime.g", "no.such"]);
            println!(
                "  debug information: goid at {:?}",
                members.and_then(|members| members.offset("runtime.g", "goid"))
            );
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}
