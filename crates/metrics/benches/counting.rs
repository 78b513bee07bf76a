//! What it costs a request to be counted, beside two looks at the clock.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use metrics::{Buckets, PerThread};

fn bench(criterion: &mut Criterion) {
    let counted = PerThread::<Buckets>::default();
    // From a microsecond to 10 ms, in no order.
    let times = [
        15_000, 1_100, 2_400_000, 130_000, 47_000, 9_800_000, 16_500, 720_000,
    ];
    let mut times = times.map(Duration::from_nanos).into_iter().cycle();
    criterion.bench_function("noted in a histogram", |bench| {
        bench.iter(|| {
            let took = times.next().expect("it goes round");
            black_box(&counted).mine().note(black_box(took));
        });
    });
    criterion.bench_function("two looks at the clock", |bench| {
        bench.iter(|| Instant::now().elapsed());
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
