//! Tables and plots in one HTML page, and the figures as CSV.
//!
//! The page is complete in itself: it loads nothing, and runs nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use charts::{Bar, Bars, Lines, Scale, Series};

use super::cached::{Sample, Watched};
use super::caching::Caching;
use super::figures::RequestKind;
use super::points::{Point, Sweep};
use super::report::{Line, Report};
use super::{LoadError, Measured};

/// The columns of the CSV file.
const COLUMNS: [&str; 11] = [
    "cache",
    "trade_probability",
    "request",
    "count",
    "failed",
    "per_second",
    "mean_us",
    "p50_us",
    "p90_us",
    "p99_us",
    "max_us",
];

/// The same above the table.
const HEADINGS: [&str; COLUMNS.len()] = [
    "Cache",
    "Trade probability",
    "Request",
    "Answered",
    "Failed",
    "Per second",
    "Mean, µs",
    "p50, µs",
    "p90, µs",
    "p99, µs",
    "Longest, µs",
];

/// The columns of the CSV file of the cache.
const CACHE_COLUMNS: [&str; 10] = [
    "seconds",
    "cache",
    "trade_probability",
    "kind",
    "entries",
    "hits",
    "misses",
    "stale",
    "evicted",
    "invalidated",
];

/// Steps of the charts over time.
const MOMENTS: u32 = 60;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:800px;margin:2em auto;padding:0 1em}\
    table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:right;\
    border-bottom:1px solid #ddd}svg{max-width:100%;height:auto}";

/// Writes a sweep's `sweep.html`, `sweep.csv` and `cache.csv`.
pub fn write_sweep(dir: &Path, sweep: &Sweep) -> Result<(), LoadError> {
    let rows: Vec<Row> = sweep
        .lines()
        .map(|(point, line)| row(&point.caching.to_string(), &point.measured, &line))
        .collect();
    let mut plots = String::new();
    for kind in RequestKind::ALL {
        plots += &latencies(sweep, kind)?;
    }
    plots += &over_time(&sweep.watched)?;
    // None where the gateway was told to keep none.
    let kept = sweep.watched.entries_max();
    let kept = kept.map_or_else(String::new, |(stocks, orders)| {
        format!(", with {stocks} stocks and {orders} orders kept at most")
    });
    let about = sweep.points.first().map_or_else(String::new, |point| {
        format!(
            "{}. Cache on: under the gateway's policy, {}{kept}. Cache off: under one that caches nothing.",
            clients(&point.measured),
            sweep.policy
        )
    });
    let title = "Latency by request type and trade probability";
    write(dir, "sweep", &page(title, &about, &plots, &rows), &rows)?;
    fs::write(dir.join("cache.csv"), cache_csv(&sweep.watched))?;
    Ok(())
}

/// Writes a single run's `load.html` and `load.csv`.
pub fn write_run(dir: &Path, measured: &Measured) -> Result<(), LoadError> {
    let lines: Vec<Line> = Report::of(measured)
        .lines()
        .filter(|line| line.answered + line.failed > 0)
        .collect();
    let bars = lines.iter().map(|line| Bar {
        name: line.kind.to_string(),
        figure: line.p50_us as f64,
        low: line.p50_us as f64,
        high: line.p99_us as f64,
    });
    let chart = Bars {
        title: "Latency: median, and up to the 99th percentile".to_owned(),
        figures_label: "µs".to_owned(),
        bars: bars.collect(),
    };
    let rows: Vec<Row> = lines.iter().map(|line| row("", measured, line)).collect();
    let page = page(
        "Latency by request type",
        &format!("{}.", clients(measured)),
        &chart.to_svg()?,
        &rows,
    );
    write(dir, "load", &page, &rows)
}

type Row = [String; COLUMNS.len()];

fn row(caching: &str, measured: &Measured, line: &Line) -> Row {
    [
        caching.to_owned(),
        measured.run.trade_probability.to_string(),
        line.kind.to_string(),
        line.answered.to_string(),
        line.failed.to_string(),
        format!("{:.0}", line.per_second),
        format!("{:.0}", line.mean_us),
        line.p50_us.to_string(),
        line.p90_us.to_string(),
        line.p99_us.to_string(),
        line.max_us.to_string(),
    ]
}

fn clients(measured: &Measured) -> String {
    let run = &measured.run;
    format!(
        "{} clients, each of which looks up {} random stocks and orders what it has looked up with \
         the trade probability; in the end it asks for each of its orders",
        run.clients, run.iterations
    )
}

/// A kind of request over the trade probabilities.
fn latencies(sweep: &Sweep, kind: RequestKind) -> Result<String, LoadError> {
    let of = |caching: Caching| -> Vec<&Point> {
        let points = sweep.points.iter();
        points.filter(|point| point.caching == caching).collect()
    };
    let quantiles = [("p50", 0.50), ("p99", 0.99)];
    let series = Caching::ALL.into_iter().flat_map(|caching| {
        quantiles.map(|(name, quantile)| Series {
            name: format!("cache {caching}, {name}"),
            figures: of(caching)
                .into_iter()
                .map(|point| {
                    let latencies = point.measured.figures.latencies(kind);
                    (!latencies.is_empty()).then(|| latencies.value_at_quantile(quantile) as f64)
                })
                .collect(),
        })
    });
    let chart = Lines {
        title: format!("Latency: {kind}"),
        steps_label: "trade probability".to_owned(),
        steps: of(Caching::On)
            .into_iter()
            .map(|point| point.measured.run.trade_probability.to_string())
            .collect(),
        figures_label: "µs".to_owned(),
        scale: Scale::Logarithmic,
        series: series.collect(),
    };
    Ok(chart.to_svg()?)
}

/// What the cache held, and what it let go of.
fn over_time(watched: &Watched) -> Result<String, LoadError> {
    let samples = watched.samples();
    let Some(last) = samples.last() else {
        return Ok(String::new());
    };
    let moments: Vec<_> = (0..=MOMENTS)
        .map(|moment| last.at * moment / MOMENTS)
        .collect();
    let line = |name: &str, value: fn(&Sample) -> u64| Series {
        name: name.to_owned(),
        figures: moments
            .iter()
            .map(|moment| {
                let until = samples.partition_point(|sample| sample.at <= *moment);
                let sample = until.checked_sub(1).map(|place| &samples[place]);
                sample.map(|sample| value(sample) as f64)
            })
            .collect(),
    };
    // Of a few stocks, and of however many orders: on one scale the stocks would be a line at its foot.
    let stocks = vec![line("stocks", |sample| sample.stocks.entries)];
    let orders = vec![line("orders", |sample| sample.orders.entries)];
    let let_go = vec![
        line("stocks invalidated", |sample| sample.stocks.invalidated),
        line("stocks evicted", |sample| sample.stocks.evicted),
        line("orders evicted", |sample| sample.orders.evicted),
    ];
    let mut plots = String::new();
    for (title, series) in [
        ("Stocks kept in the gateway's cache", stocks),
        ("Orders kept in the gateway's cache", orders),
        ("Let go by the gateway's cache, since the beginning", let_go),
    ] {
        let chart = Lines {
            title: title.to_owned(),
            steps_label: "seconds".to_owned(),
            steps: moments
                .iter()
                .map(|moment| format!("{:.1}", moment.as_secs_f64()))
                .collect(),
            figures_label: "entries".to_owned(),
            scale: Scale::Linear,
            series,
        };
        plots += &chart.to_svg()?;
    }
    Ok(plots)
}

fn cache_csv(watched: &Watched) -> String {
    let mut csv = CACHE_COLUMNS.join(",") + "\n";
    for sample in watched.samples() {
        for (kind, cache) in [("stock", &sample.stocks), ("order", &sample.orders)] {
            let figures = [
                cache.entries,
                cache.hits,
                cache.misses,
                cache.stale,
                cache.evicted,
                cache.invalidated,
            ];
            let (seconds, caching) = (sample.at.as_secs_f64(), sample.caching);
            let begins = format!("{seconds:.3},{caching},{},{kind}", sample.trade_probability);
            csv += &figures
                .iter()
                .fold(begins, |line, figure| format!("{line},{figure}"));
            csv.push('\n');
        }
    }
    csv
}

fn page(title: &str, about: &str, plots: &str, rows: &[Row]) -> String {
    let mut table = String::new();
    let cells = |table: &mut String, tag: &str, cells: &[&str]| {
        table.push_str("<tr>");
        for cell in cells {
            write!(table, "<{tag}>{}</{tag}>", escaped(cell)).expect("a string takes it all");
        }
        table.push_str("</tr>\n");
    };
    cells(&mut table, "th", &HEADINGS);
    for row in rows {
        cells(&mut table, "td", &row.each_ref().map(String::as_str));
    }
    let (title, about) = (escaped(title), escaped(about));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<p>{about}</p>\n{plots}\n\
         <table>\n{table}</table>\n</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn write(dir: &Path, name: &str, page: &str, rows: &[Row]) -> Result<(), LoadError> {
    fs::create_dir_all(dir)?;
    // No cell has a comma or a quotation mark.
    let mut csv = COLUMNS.join(",") + "\n";
    for row in rows {
        csv += &(row.join(",") + "\n");
    }
    fs::write(dir.join(format!("{name}.html")), page)?;
    fs::write(dir.join(format!("{name}.csv")), csv)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_texts_as_they_are() {
        let row = COLUMNS.map(|column| format!("<{column}>"));
        let page = page("a < b", "x & y", "<svg></svg>", &[row]);
        for part in [
            "<h1>a &lt; b</h1>",
            "<p>x &amp; y</p>",
            "<td>&lt;cache&gt;</td>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(page.contains("<svg></svg>") && !page.contains("<script"));
    }
}
