"""The figures of the report, sized for one column of a paper. matplotlib is imported when one is drawn."""
