export { comparisonPage } from './comparison-page.js';
export { jobPage } from './job-page.js';
export { type JobReport, readJobReport } from './job-report.js';
export { pageBeginning } from './page.js';
export { type Peaks, rooflineSvg } from './roofline.js';
export { klText, percentText, perplexityText } from './text.js';
export { createComparison, writeComparison } from './write-comparison.js';
