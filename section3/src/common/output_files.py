"""The names of what a study's folder of outputs holds."""

PAGE, PAGE_PICTURE = "report.dcm", "report.png"
SERIES_PAGE, SERIES_PICTURE = "report_series.dcm", "report_series.png"
OVERLAY = "overlay"  # a folder: a picture a slice
SEGMENTATION, MEASUREMENTS = "segmentation.dcm", "measurements.dcm"
PROBABILITIES = "probability_map.dcm"
RESULT = "result.json"
OUTPUTS = (PAGE, PAGE_PICTURE, SERIES_PAGE, SERIES_PICTURE, OVERLAY, SEGMENTATION, MEASUREMENTS)
POSSIBLE_OUTPUTS = (*OUTPUTS, PROBABILITIES)
