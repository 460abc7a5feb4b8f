//! The whole: readings in, efforts and an account out.

use super::*;

fn governor(cores: Option<f64>, memory: Option<u64>) -> Governor {
    Governor::new(Budgets { cores, memory }, Instant::now(), KernelSide::default())
}

/// Readings at this use, one each half second; gives the efforts asked for.
fn feed(governor: &mut Governor, looks: u32, cores: f64, resident: u64) -> Vec<Effort> {
    (0..looks)
        .filter_map(|_| {
            let mut reading = governor.last;
            reading.at += EVERY;
            reading.cpu += EVERY.mul_f64(cores);
            reading.resident = resident;
            governor.take(reading)
        })
        .collect()
}

#[test]
fn cpu_over_the_budget_is_given_up_and_taken_back() {
    let mut governor = governor(Some(0.1), Some(256 << 20));
    assert!(feed(&mut governor, 100, 0.09, 30 << 20).is_empty());
    let up = feed(&mut governor, 7, 0.3, 30 << 20);
    assert_eq!(up, [Level::Heads.effort(None), Level::Impatient.effort(None), Level::Half.effort(None)]);
    let back = feed(&mut governor, 60, 0.01, 30 << 20);
    assert_eq!(back.last(), Some(&Effort::default()));
    let stage = governor.stage();
    assert!(stage.balances());
    assert_eq!((stage.input, stage.notes[0].1, stage.notes[1].1), (167, 3, 3));
    assert_eq!(stage.notes[2].1, 300);
}

#[test]
fn memory_lets_go_at_once() {
    let mut governor = governor(Some(0.5), Some(64 << 20));
    let up = feed(&mut governor, 30, 0.0, 80 << 20);
    assert_eq!(up.len(), LEVELS.len() - 1);
    assert!(up[2].at_once && !up[1].at_once && up[4].no_new_processes);
    assert_eq!(governor.steps.level(), Level::Nothing);
    assert_eq!(feed(&mut governor, 100, 0.0, 40 << 20).last(), Some(&Effort::default()));
}

#[test]
fn without_budgets_nothing_is_given_up() {
    let mut governor = governor(None, None);
    assert!(feed(&mut governor, 100, 8.0, 8 << 30).is_empty());
}

#[test]
fn it_is_time_twice_a_second() {
    let mut governor = governor(Some(0.5), None);
    let start = governor.last.at;
    assert!(!governor.looked(1, start + Duration::from_millis(499)));
    assert!(governor.looked(2, start + Duration::from_millis(500)));
    assert_eq!((governor.looks, governor.found), (2, 3));
}
