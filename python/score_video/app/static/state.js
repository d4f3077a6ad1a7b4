// What the modules of the page share.

import { Refused, tell } from "./api.js";

export const $ = (id) => document.getElementById(id);

export const state = { offer: null, request: null, film: null, frame: 0, place: null, columns: [], playing: null };

export const retention = () => Number($("retention").value) / 100;
export const compressors = () => state.columns.map((column) => column.select.value);

// The function, whose errors become a line on the page
export const guarded = (job) => async (...given) => {
  try {
    return await job(...given);
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    tell(error instanceof Refused ? error.message : `Something went wrong on this page: ${error.message}`);
    if (!(error instanceof Refused)) console.error(error);
    return undefined;
  }
};
