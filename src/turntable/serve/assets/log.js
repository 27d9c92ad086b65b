// Follows a log: asks for what was written since, less often while nothing is, and not at all while nobody looks.
"use strict";

const log = document.getElementById("log");
const skipped = document.getElementById("skipped");
const follow = document.getElementById("follow");
const MOST = 1000000; // characters kept on the page
const SOON = 1000;
const LATE = 8000; // milliseconds
let next = Number(log.dataset.next);
let wait = SOON;

async function look() {
  if (follow.checked && !document.hidden) {
    try {
      const answer = await fetch(`${log.dataset.part}?from=${next}`);
      if (answer.ok) add(await answer.json());
    } catch {
      wait = LATE; // the server is away; it may come back
    }
  }
  setTimeout(look, wait);
}

function add(part) {
  wait = part.text ? SOON : Math.min(LATE, wait * 1.5);
  if (part.next < next) log.textContent = ""; // the log was begun anew
  if (part.skipped) {
    skipped.hidden = false;
    log.textContent = "";
  }
  next = part.next;
  if (!part.text) return;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(part.text);
  if (log.childNodes.length > 200 || log.textContent.length > MOST) log.textContent = log.textContent.slice(-MOST);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

log.scrollTop = log.scrollHeight;
setTimeout(look, wait);
