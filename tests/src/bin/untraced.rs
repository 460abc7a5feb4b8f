//! A program that nobody traces. In: milliseconds. Out: what a cheap system call and an echo over loopback cost it, in
//! nanoseconds: `getppid N` and `echo N`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let time: u64 = std::env::args().nth(1).context("untraced MILLISECONDS")?.parse()?;
    let time = Duration::from_millis(time);
    println!("getppid {:.2}", calls(time));
    println!("echo {:.1}", echoes(time)?);
    Ok(())
}

/// Nanoseconds a time.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn each(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}

/// The cheapest call that enters the kernel.
fn calls(time: Duration) -> f64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..1_000 {
            std::hint::black_box(std::os::unix::process::parent_id());
        }
        count += 1_000;
    }
    each(start.elapsed(), count)
}

/// There and back, four transfers.
fn echoes(time: Duration) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let mut bytes = [0; 64];
    let (start, mut count) = (Instant::now(), 0);
    // Both ends on one thread: what is measured is the calls, not the scheduler.
    while start.elapsed() < time {
        for _ in 0..100 {
            near.write_all(&bytes)?;
            far.read_exact(&mut bytes)?;
            far.write_all(&bytes)?;
            near.read_exact(&mut bytes)?;
        }
        count += 100;
    }
    Ok(each(start.elapsed(), count))
}
