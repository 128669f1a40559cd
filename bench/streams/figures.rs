//! What was measured: printed as a table, written as JSON.

use std::{fmt, time::Duration};

use serde_json::{Map, Value, json};

/// A named number with its unit.
struct Figure {
    section: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
}

#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) {
        let name = name.into();
        // what was measured is said at once: a run takes minutes
        eprintln!("  {section}: {name}: {value:.3} {unit}");
        self.0.push(Figure {
            section,
            name,
            value,
            unit,
        });
    }

    /// Median, 99th percentile and maximum, in milliseconds.
    pub(crate) fn add_times(
        &mut self,
        section: &'static str,
        name: &str,
        mut times: Vec<Duration>,
    ) -> anyhow::Result<()> {
        times.sort_unstable();
        for (label, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            let time = times
                .get(rank)
                .ok_or_else(|| anyhow::anyhow!("{section}: {name}: nothing was measured"))?;
            let milliseconds = time.as_secs_f64() * 1000.0;
            self.add(section, format!("{name}, {label}"), milliseconds, "ms");
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> String {
        let mut sections = Map::new();
        for figure in &self.0 {
            let section = sections
                .entry(figure.section)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(section) = section {
                let value = json!({"value": figure.value, "unit": figure.unit});
                section.insert(figure.name.clone(), value);
            }
        }
        format!("{:#}\n", Value::Object(sections))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for figure in &self.0 {
            if section != figure.section {
                section = figure.section;
                writeln!(f, "\n| {section} | | |\n|---|---:|---|")?;
            }
            writeln!(
                f,
                "| {} | {:.3} | {} |",
                figure.name, figure.value, figure.unit
            )?;
        }
        Ok(())
    }
}
