// The classic script defines `Roomcast` for pages that load it by `<script src>`.
import { Roomcast } from './index.js';

globalThis.Roomcast = Roomcast;
