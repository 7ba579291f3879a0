export { type Peaks, rooflineSvg } from './roofline.js';
