"""From records to statistics, tables, figures and one page. Never imports torch."""
