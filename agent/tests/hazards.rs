//! Trials of hazards leave nothing behind. Alone in its process, so that nobody else opens or starts anything meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use spanwise::kernel::hazard::{FEATURES, Feature, Hazards, Verdict};

/// What the process has open, mapped and started.
fn belongings() -> (Vec<String>, Vec<String>, String) {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut open: Vec<_> = links
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        // The folder that is being read.
        .filter(|link| !link.ends_with("/fd"))
        .collect();
    open.sort();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("memfd") || line.contains("uprobe"));
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    (open, mapped.map(str::to_owned).collect(), children)
}

#[test]
fn nothing_is_left_behind() {
    let before = belongings();
    let start = std::time::Instant::now();
    let hazards = Hazards::look(FEATURES);
    println!("all trials took {:?}", start.elapsed());
    let (open, mapped, children) = belongings();
    assert_eq!(open, before.0);
    assert_eq!(children, before.2);
    // The kernel keeps the page that it put into a process for its return probes; the trials run them in children.
    assert_eq!(mapped, before.1);
    for row in hazards.rows() {
        println!("{:?} {}: {}", row.verdict, row.feature.key(), row.sentence);
    }
    // The same question twice has the same answer.
    let again = Hazards::look(&[Feature::SocketMaps, Feature::Nop5Probes]);
    for feature in [Feature::SocketMaps, Feature::Nop5Probes] {
        let verdict = |hazards: &Hazards| -> Verdict {
            match hazards.rows().iter().find(|row| row.feature == feature) {
                Some(row) => row.verdict,
                None => panic!("no row for {feature:?}"),
            }
        };
        assert_eq!(verdict(&hazards), verdict(&again), "{feature:?}");
    }
}
