//! Prints the records of a process: `ringdump PID [plane]`. A tool for those who work on the kernel side.
use spanwise::config::PlaneChoice;
use spanwise::kernel::{load::Kernel, record};

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let pid: u32 = std::env::args().nth(1).unwrap_or_default().parse()?;
    let asked = match std::env::args().nth(2).as_deref() {
        Some("syscall") => PlaneChoice::Syscall,
        _ => PlaneChoice::Auto,
    };
    let t = std::time::Instant::now();
    let mut kernel = Kernel::load(asked)?;
    println!("loaded in {:?}, losses {:?}", t.elapsed(), kernel.losses);
    kernel.trace(pid, 3)?;
    kernel.attach()?;
    println!("attached in {:?}", t.elapsed());
    let Some(mut ring) = kernel.take_ring() else { return Ok(()) };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::time::Instant::now() < end {
        ring.drain(1000, |bytes| match record::decode(bytes) {
            Some(record::Record::Data(d, p)) => {
                println!("{d:?} {:?}", String::from_utf8_lossy(p.get(..p.len().min(60)).unwrap_or_default()));
            }
            other => println!("{other:?}"),
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    println!("{:?}", kernel.counters());
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")?
            .lines()
            .filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    Ok(())
}
