use fastrand::Rng;

use super::*;
use crate::machine::Machine;
use crate::report::Report;

/// What a simulated run is like.
#[derive(Clone, Copy)]
struct Truth {
    /// Of the machine, on which everybody is so fast.
    speed: f64,
    /// Of Bazaar, compared with what it was.
    ours: f64,
    sittings: usize,
}

const TRUTH: Truth = Truth {
    speed: 1.0,
    ours: 1.0,
    sittings: 1,
};

const ROUNDS: usize = 5;

/// By how much the machine's own business moves all figures of a round, those of one contender in it, and a p99 besides.
const DRIFT: f64 = 0.1;
const NOISE: f64 = 0.01;
const P99_NOISE: f64 = 0.05;

/// A normal variable's exponential: Box and Muller.
fn scattered(random: &mut Rng, by: f64) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    (by * radius * (std::f64::consts::TAU * random.f64()).cos()).exp()
}

fn machine(processor: &str) -> Machine {
    Machine {
        processor: processor.to_owned(),
        cores: 2,
        kernel: "6.1".to_owned(),
        memory_bytes: 8 << 30,
        governor: None,
        is_virtual: Some(true),
        file_system: "ext4 /dev/vda".to_owned(),
        load_average: 0.5,
    }
}

fn run(random: &mut Rng, truth: Truth) -> Run {
    let contenders = [
        (BAZAAR, 140_000.0 * truth.ours),
        ("nginx", 86_000.0),
        ("haproxy", 99_000.0),
    ];
    let mut series = contenders.map(|(contender, _)| Series {
        contender: contender.to_owned(),
        lacks: String::new(),
        rounds: Vec::new(),
    });
    for _ in 0..truth.sittings * ROUNDS {
        let drift = truth.speed * scattered(random, DRIFT);
        for (series, (_, rate)) in series.iter_mut().zip(contenders) {
            let per_second = rate * drift * scattered(random, NOISE);
            let p50_us = 64e6 / per_second * scattered(random, NOISE / 2.0);
            series.rounds.push(Round {
                per_second,
                p50_us,
                p99_us: 2.0 * p50_us * scattered(random, P99_NOISE),
            });
        }
    }
    let scenario = Scenario {
        kind: Kind::Lookups,
        connections: 64,
        series: series.into(),
        absent: Vec::new(),
    };
    let report = Report::new(
        machine("AMD EPYC"),
        truth.sittings,
        ROUNDS,
        3,
        vec![scenario],
    );
    Run::of(&report, None)
}

/// The figures of two simulated runs.
fn figures(seed: u64, earlier: Truth, later: Truth) -> Vec<Figure> {
    let mut random = Rng::with_seed(seed);
    let (earlier, later) = (run(&mut random, earlier), run(&mut random, later));
    Moved::between(&[&earlier], &[&later]).figures
}

/// In how many of 1000 pairs of runs nothing is said to have moved.
fn quiet(earlier: Truth, later: Truth) -> usize {
    let is_quiet = |seed: &u64| {
        let figures = figures(*seed, earlier, later);
        assert_eq!(figures.len(), MEASURES.len());
        !figures.iter().any(Figure::is_beyond_noise)
    };
    (0..1000).filter(is_quiet).count()
}

#[test]
fn the_same_against_itself_says_nothing_in_95_of_100_runs() {
    let quiet = quiet(TRUTH, TRUTH);
    assert!(quiet >= 950, "{quiet} of 1000");
}

#[test]
fn a_machine_of_half_the_speed_moves_nothing() {
    let slow = Truth {
        speed: 0.5,
        ..TRUTH
    };
    let quiet = quiet(TRUTH, slow);
    assert!(quiet >= 950, "{quiet} of 1000");
}

#[test]
fn starts_that_are_counted_say_nothing_of_themselves_either() {
    let often = Truth {
        sittings: 4,
        ..TRUTH
    };
    let quiet = quiet(often, often);
    assert!(quiet >= 950, "{quiet} of 1000");
}

#[test]
fn a_planted_change_is_found_with_its_size_on_a_slower_machine() {
    for ours in [1.1, 0.9] {
        let changed = Truth {
            ours,
            speed: 0.5,
            ..TRUTH
        };
        let (mut found, mut within) = (0, 0);
        for seed in 0..200 {
            let figures = figures(seed, TRUTH, changed);
            let [rate, p50, _] = &figures[..] else {
                panic!("{figures:?}")
            };
            let verdict = if ours > 1.0 {
                "**better**"
            } else {
                "**worse**"
            };
            found += usize::from([rate, p50].iter().all(|of| of.verdict() == verdict));
            within += usize::from(rate.change.low <= ours && ours <= rate.change.high);
        }
        assert!(found >= 190, "{ours}: found in {found} of 200");
        assert!(within >= 190, "{ours}: within {within} of 200 intervals");
    }
}

#[test]
fn a_run_beside_itself_has_moved_by_nothing() {
    let run = run(&mut Rng::with_seed(7), TRUTH);
    let moved = Moved::between(&[&run], &[&run]);
    for figure in &moved.figures {
        assert!(!figure.is_beyond_noise(), "{figure:?}");
        assert_eq!(figure.earlier, figure.later);
    }
    let text = moved.to_markdown();
    for part in [
        "Both were measured on one kind of machine: 2 × AMD EPYC",
        "| Cached lookups, 64 connections, bazaar: per second | haproxy, nginx | ",
        "not beyond noise: the interval includes 1",
        "SITTINGS=3",
        "0 of 3 figures moved beyond noise.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn runs_of_a_commit_count_as_its_starts() {
    let mut random = Rng::with_seed(8);
    let runs: Vec<Run> = (0..6).map(|_| run(&mut random, TRUTH)).collect();
    let runs: Vec<&Run> = runs.iter().collect();
    let text = Moved::between(&runs[..3], &runs[3..]).to_markdown();
    assert!(
        text.contains("Each start of the contenders counts"),
        "{text}"
    );
    let text = Moved::between(&runs[..2], &runs[2..]).to_markdown();
    assert!(text.contains("Each round counts"), "{text}");
}

#[test]
fn machines_that_differ_and_peers_that_were_not_there_are_said() {
    let mut random = Rng::with_seed(9);
    let earlier = run(&mut random, TRUTH);
    let mut later = run(&mut random, TRUTH);
    later.machine = machine("Intel Xeon");
    later.scenarios[0].series.remove(1);
    let text = Moved::between(&[&earlier], &[&later]).to_markdown();
    for part in [
        "**The machines differ**",
        "AMD EPYC",
        "Intel Xeon",
        "bazaar: p99 | haproxy |",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    later.scenarios[0].series.truncate(1);
    let text = Moved::between(&[&earlier], &[&later]).to_markdown();
    for part in [
        "Not compared: Cached lookups, 64 connections, bazaar, which no peer was measured beside in every run.",
        "0 of 0 figures moved beyond noise.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    later.scenarios.clear();
    let moved = Moved::between(&[&earlier], &[&later]);
    assert!(moved.figures.is_empty());
    assert!(moved.left_out[0].contains("not measured in every run"));
}
