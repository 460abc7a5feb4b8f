//! Order, hysteresis, and how often the level may turn.

use proptest::prelude::*;

use super::*;

const LOOK: Duration = Duration::from_millis(500);

fn load(cpu: f64) -> Load {
    Load { cpu, moving: cpu, ..Load::default() }
}

/// Feeds a load for so many looks; gives the levels after each step, with the times in milliseconds.
fn run(steps: &mut Steps, from: Duration, looks: u32, of: impl Fn(Level) -> Load) -> Vec<(u128, Level)> {
    (1..=looks)
        .filter_map(|look| {
            let now = from + LOOK * look;
            let load = of(steps.level());
            steps.observe(now, &load).map(|step| (now.as_millis(), step.to))
        })
        .collect()
}

#[test]
fn too_much_steps_up_one_by_one_and_calm_steps_back_in_reverse() {
    let mut steps = Steps::default();
    let up = run(&mut steps, Duration::ZERO, 40, |_| load(3.0));
    assert_eq!(up.iter().map(|step| step.1).collect::<Vec<_>>(), LEVELS[1..]);
    assert_eq!(up[0].0, 1_500, "the first look that is too much, and a second more");
    assert!(up.windows(2).all(|two| two[1].0 - two[0].0 >= 1_000), "{up:?}");
    let down = run(&mut steps, Duration::from_secs(20), 100, |_| load(0.0));
    let back: Vec<_> = LEVELS[..6].iter().rev().copied().collect();
    assert_eq!(down.iter().map(|step| step.1).collect::<Vec<_>>(), back);
    assert!(down.windows(2).all(|two| two[1].0 - two[0].0 >= 5_000), "{down:?}");
}

#[test]
fn a_short_peak_is_no_reason() {
    let mut steps = Steps::default();
    for look in 0..200_u32 {
        let peak = load(if look % 3 < 2 { 5.0 } else { 0.9 });
        assert_eq!(steps.observe(LOOK * look, &peak), None);
    }
}

#[test]
fn between_the_bounds_nothing_changes() {
    let mut steps = Steps::default();
    run(&mut steps, Duration::ZERO, 6, |_| load(3.0));
    let level = steps.level();
    assert!(level > Level::Everything);
    assert!(run(&mut steps, Duration::from_secs(3), 1_000, |_| load(0.8)).is_empty());
    assert_eq!(steps.level(), level);
}

#[test]
fn a_step_back_needs_room_for_what_it_lets_in() {
    // Half of the connections rest and half of the budget is used: with all of them it would be all of it.
    let mut steps = Steps { level: Level::Half, ..Steps::default() };
    assert!(run(&mut steps, Duration::ZERO, 100, |_| load(0.5)).is_empty());
    assert!(!run(&mut steps, Duration::from_secs(50), 100, |_| load(0.3)).is_empty());
    // What the agent takes in any case, and for new processes, does not grow with it.
    let mut steps = Steps { level: Level::Most, ..Steps::default() };
    let other = Load { cpu: 0.5, moving: 0.05, ..Load::default() };
    assert!(!run(&mut steps, Duration::ZERO, 100, |_| other).is_empty());
    // Memory does not grow either.
    let mut steps = Steps { level: Level::Half, ..Steps::default() };
    let memory = Load { memory: 0.8, ..Load::default() };
    assert!(!run(&mut steps, Duration::ZERO, 100, |_| memory).is_empty());
}

#[test]
fn the_worst_is_the_reason() {
    let mut steps = Steps::default();
    let worst = Load { cpu: 1.1, moving: 1.0, memory: 3.0, ring: 2.0 };
    let mut first = None;
    for look in 0..10_u32 {
        first = first.or(steps.observe(LOOK * look, &worst));
    }
    assert_eq!(first, Some(Step { to: Level::Heads, reason: Some(Reason::Memory) }));
    for odd in [f64::NAN, f64::INFINITY] {
        let mut steps = Steps::default();
        run(&mut steps, Duration::ZERO, 100, |_| load(odd));
        assert!(steps.level() == if odd.is_nan() { Level::Everything } else { Level::Nothing });
    }
}

#[test]
fn a_lasting_load_is_tried_ever_more_rarely() {
    // At the last level nothing is seen, so it looks calm; one below it is too much.
    let mut steps = Steps::default();
    let of = |level| if level == Level::Nothing { load(0.0) } else { load(2.0) };
    let all = run(&mut steps, Duration::ZERO, 7_200, of);
    let tries: Vec<u128> = all.iter().filter(|step| step.1 == Level::NoNew).map(|step| step.0).collect();
    let last = tries.windows(2).last().map(|two| two[1] - two[0]).unwrap();
    assert!(last >= LONGEST_CALM.as_millis(), "every {last} ms");
    assert!(tries.len() < 60, "{} tries in an hour", tries.len());
    // Afterwards it takes minutes, and not hours, until all is as before.
    let down = run(&mut steps, Duration::from_secs(3_600), 1_000, |_| load(0.0));
    assert_eq!(down.last().unwrap().1, Level::Everything);
    assert!(down.last().unwrap().0 - 3_600_000 <= 240_000, "{down:?}");
}

#[test]
fn each_level_gives_up_what_the_one_before_did() {
    for two in LEVELS.windows(2) {
        let (a, b) = (two[0].effort(None), two[1].effort(None));
        assert_ne!(a, b);
        assert!(a.heads_only <= b.heads_only && a.impatient <= b.impatient && a.resting <= b.resting);
        assert!(a.no_new_processes <= b.no_new_processes);
    }
    assert_eq!(Level::Everything.effort(Some(Reason::Memory)), Effort::default());
    assert!(Level::Half.effort(Some(Reason::Memory)).at_once);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the load and however the looks are spaced: one level at a time, in time, and it never turns faster than stated.
    #[test]
    fn it_never_flaps(looks in prop::collection::vec((1_u64..3_000, 0.0..3.0_f64, 0.0..1.5_f64, 0.0..1.5_f64), 1..600)) {
        let mut steps = Steps::default();
        let mut now = Duration::ZERO;
        let (mut last, mut last_at) = (Level::Everything, Duration::ZERO);
        for (pause, cpu, memory, ring) in looks {
            now += Duration::from_millis(pause);
            let load = Load { cpu, moving: cpu * 0.9, memory, ring };
            let Some(step) = steps.observe(now, &load) else { continue };
            prop_assert_eq!(step.to, steps.level());
            prop_assert_eq!((step.to as usize).abs_diff(last as usize), 1);
            let waited = now - last_at;
            if step.to > last {
                prop_assert!(cpu > 1.0 || memory > 1.0 || ring > 1.0);
                prop_assert!(step.reason.is_some());
                prop_assert!(waited >= HOT_FOR);
            } else {
                prop_assert!(cpu < CALM && ring < CALM && memory < CALM_MEMORY);
                prop_assert!(step.reason.is_none());
                prop_assert!(waited >= CALM_FOR);
            }
            prop_assert!(steps.calm_for >= CALM_FOR && steps.calm_for <= LONGEST_CALM);
            (last, last_at) = (step.to, now);
        }
    }

    /// From wherever it is, lasting calm ends at everything and a lasting excess at nothing.
    #[test]
    fn it_gets_there(before in prop::collection::vec(0.0..3.0_f64, 0..400), much in any::<bool>()) {
        let mut steps = Steps::default();
        let mut now = Duration::ZERO;
        for cpu in before {
            now += LOOK;
            steps.observe(now, &load(cpu));
        }
        run(&mut steps, now, 1_200, |_| load(if much { 1.5 } else { 0.05 }));
        prop_assert_eq!(steps.level(), if much { Level::Nothing } else { Level::Everything });
    }
}
