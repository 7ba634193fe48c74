//! The table on the terminal: one for each workload, a row for each step and target.

use crate::record::Record;

pub(crate) fn render(records: &[Record]) -> String {
    let mut out = String::new();
    for record in records {
        out += &format!("{} | {} | {} |", record.workload, record.step, record.target);
        for (name, value) in &record.values {
            out += &format!(" {name}={value:.3}");
        }
        for remark in &record.remarks {
            out += &format!(" [{remark}]");
        }
        out += "\n";
    }
    out
}
