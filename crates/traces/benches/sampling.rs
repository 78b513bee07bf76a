//! What it costs a request to be decided about, and one that is traced to have a span.

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use traces::sampler::Sampling;
use traces::{Config, Kind, Service, TRACEPARENT, Traces};

fn traces(share: f64) -> Traces {
    let config = Config {
        // Nobody is there: what there is no room for is dropped.
        target: "http://127.0.0.1:1".parse().expect("it is a URL"),
        sampling: Sampling {
            share,
            asked_max: 10,
        },
    };
    let service = Service {
        name: "bench",
        instance: "1".into(),
    };
    Traces::start(config, service).expect("there is a thread")
}

fn bench(criterion: &mut Criterion) {
    let none = HeaderMap::new();
    let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let asks = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(sampled))]);
    let off = Traces::default();
    criterion.bench_function("off", |bench| bench.iter(|| off.sample(&none)));
    let rare = traces(f64::MIN_POSITIVE);
    criterion.bench_function("not sampled", |bench| bench.iter(|| rare.sample(&none)));
    criterion.bench_function("asked for beyond the bound", |bench| {
        bench.iter(|| rare.sample(&asks));
    });
    let all = traces(1.0);
    criterion.bench_function("sampled, with a span of four attributes", |bench| {
        bench.iter(|| {
            let parent = all.sample(&none).expect("all are");
            parent
                .begin(Kind::Server, "GET stock")
                .with("http.request.method", "GET")
                .with("url.path", String::from("/stocks/nvidia"))
                .with("http.response.status_code", 200_u16)
                .with("bazaar.cache", "hit")
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
