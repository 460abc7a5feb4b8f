//! Tests over programs that were built before, for looking by hand: `cargo test -p spanwise go_sites -- --ignored --nocapture`.

use super::*;
use crate::placement::Rules;

#[test]
#[ignore = "prints the sites of the programs that GO_PROGRAMS names"]
fn go_sites() {
    for path in std::env::var("GO_PROGRAMS").unwrap().split(':') {
        let bytes = std::fs::read(path).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        let facts =
            Facts { path, is_program: true, language: Language::Go, rules: Rules::default(), returns: false };
        let found = Golang.look(&elf, &facts).unwrap();
        println!("{path}");
        for probe in &found.probes {
            let site = &probe.site;
            println!(
                "  {} {} +{:#x} `{}` {:?} {:?}",
                probe.program, site.function, site.from_start, site.instruction, site.class, site.places
            );
        }
        for refusal in &found.refusals {
            println!("  - {refusal}");
        }
        for note in &found.notes {
            println!("  - {note}");
        }
    }
}
