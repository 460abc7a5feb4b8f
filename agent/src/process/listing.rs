//! All processes, with what would be captured of each: what `spanwise ps` shows.

use std::io;

use super::inspect::{InspectError, Process};
use super::procfs::Proc;
use super::services::{Naming, Services};
use super::sockets::Listeners;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// Process id.
    pub pid: u32,
    /// Name of the program file (the kernel's short name where that may not be looked at).
    pub program: String,
    /// Language, if the process can be traced.
    pub language: Option<&'static str>,
    /// Service name its spans would carry.
    pub service: Option<String>,
    /// Libraries of interest.
    pub libraries: Vec<&'static str>,
    /// Addresses it listens on.
    pub listening: Vec<String>,
    /// Container id.
    pub container: Option<String>,
    /// Whether it can be traced.
    pub traceable: bool,
    /// What would be captured, or why nothing.
    pub capture: String,
}

/// All processes in order of their ids, threads of the kernel left out.
pub fn listing(proc: &Proc, naming: Naming) -> io::Result<Vec<Row>> {
    let (mut services, mut listeners) = (Services::new(naming), Listeners::default());
    Ok(proc
        .pids()?
        .into_iter()
        .filter_map(|pid| match Process::inspect_in(proc, pid) {
            Ok(process) => {
                let service = services.for_process(&process);
                Some(Row {
                    pid,
                    program: process.exe_name().to_owned(),
                    language: Some(process.language.as_str()),
                    service: Some(service.name.to_string()),
                    listening: listeners.of(proc, pid),
                    container: process.container.as_deref().map(str::to_owned),
                    traceable: true,
                    capture: capture(&process),
                    libraries: process.libraries,
                })
            }
            // Gone means that it ended while the list was made.
            Err(InspectError::Kernel(..) | InspectError::Gone(_)) => None,
            Err(error) => Some(Row {
                pid,
                program: proc.stat(pid).map(|stat| stat.comm.to_string()).unwrap_or_default(),
                language: None,
                service: None,
                libraries: Vec::new(),
                listening: listeners.of(proc, pid),
                container: None,
                traceable: false,
                capture: error.to_string(),
            }),
        })
        .collect())
}

fn capture(process: &Process) -> String {
    let mut text = "HTTP and gRPC on TCP and unix sockets".to_owned();
    if process.libraries.contains(&"liburing") {
        text.push_str("; io_uring where the kernel tells its buffers");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_the_list() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let rows = listing(&Proc::default(), Naming::default()).unwrap();
        let row = rows.iter().find(|row| row.pid == std::process::id()).unwrap();
        assert_eq!((row.language, row.traceable), (Some("rust"), true));
        assert!(row.listening.contains(&listener.local_addr().unwrap().to_string()));
        assert!(rows.iter().all(|row| row.program != "kthreadd" || row.pid != 2));
        assert!(rows.windows(2).all(|pair| pair[0].pid < pair[1].pid));
    }
}
