// Only adds: without it every page works.
(() => {
  // Times of the reader's clock; the exact one in UTC stays the title.
  const formats = { date: { dateStyle: "medium" }, minute: { dateStyle: "medium", timeStyle: "short" } };
  for (const local of document.querySelectorAll("[data-ata-local]")) {
    const at = new Date(local.parentElement.querySelector("time").dateTime);
    if (!Number.isNaN(at.getTime())) {
      local.textContent = at.toLocaleString(undefined, formats[local.dataset.ataLocal]);
    }
  }

  const copy = document.querySelector("[data-ata-copy]");
  const token = document.querySelector(".ata-token");
  if (copy && token) {
    const said = document.querySelector("[data-ata-copied]");
    let timer;
    const copyWithoutClipboard = () => {
      token.select();
      return document.execCommand("copy");
    };
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      let done;
      try {
        await navigator.clipboard.writeText(token.value);
        done = true;
      } catch {
        // Browsers offer the clipboard on secure addresses only.
        done = copyWithoutClipboard();
      }
      copy.textContent = done ? "Copied" : "Not copied";
      said.textContent = done ? "The token is copied." : "The token could not be copied. Select it and copy it yourself.";
      clearTimeout(timer);
      timer = setTimeout(() => { copy.textContent = "Copy"; said.textContent = ""; }, 4000);
    });
    token.addEventListener("focus", () => token.select());
  }

  // Back loads a page anew, with new keys in its forms. A form that was sent keeps its own, and so does nothing twice.
  const isBack = performance.getEntriesByType("navigation")[0]?.type === "back_forward";
  const used = (isBack && history.state?.ataOnce) || {};
  if (!isBack && history.state?.ataOnce) history.replaceState({ ...history.state, ataOnce: {} }, "");
  for (const key of document.querySelectorAll("[data-ata-once]")) {
    if (Object.hasOwn(used, key.dataset.ataOnce)) key.value = used[key.dataset.ataOnce];
  }

  // The answer to a second click would take the place of the first one's, which alone has the token in it.
  const sent = new WeakMap();
  for (const posted of document.querySelectorAll(".ata form[method=post]")) {
    posted.addEventListener("submit", (event) => {
      if (Date.now() - (sent.get(posted) ?? 0) < 5000) {
        event.preventDefault();
        return;
      }
      sent.set(posted, Date.now());
      const key = posted.querySelector("[data-ata-once]");
      if (key) {
        const once = { ...history.state?.ataOnce, [key.dataset.ataOnce]: key.value };
        history.replaceState({ ...history.state, ataOnce: once }, "");
      }
    });
  }

  const form = document.querySelector(".ata-form");
  if (!form?.elements.expire_type) return;
  const unit = form.elements.expire_type;
  const number = form.elements.expire_duration;
  const grants = form.querySelector("[data-ata-grants]");
  const summary = form.querySelector("[data-ata-summary]");
  const sizes = { minutes: 60, hours: 3600, days: 86400 };

  const element = (name, text, ...children) => {
    const made = document.createElement(name);
    made.append(text, ...children);
    return made;
  };

  const listed = (words) => words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

  const lowered = (text) => /^[A-Z][a-z]/.test(text) ? text[0].toLowerCase() + text.slice(1) : text;

  const expiry = () => {
    if (unit.value === "keep") return "Its expiry stays as it is.";
    if (unit.value === "") return "It never expires.";
    const count = /^\s*[0-9]{1,9}\s*$/.test(number.value) ? Number(number.value) : 0;
    const end = new Date(Date.now() + count * sizes[unit.value] * 1000);
    if (!count || Number.isNaN(end.getTime())) return "";
    const format = unit.value === "days" ? formats.date : formats.minute;
    return `It stops working on ${end.toLocaleString(undefined, format)}.`;
  };

  const abilities = () => {
    if (!grants || !limited()) return [element("p", "It may do everything that you may do. ", expiry())];
    const places = [];
    for (const group of grants.querySelectorAll("[data-ata-where]")) {
      const ticked = [...group.querySelectorAll("input:checked")];
      if (ticked.length) {
        const does = ticked.map((box) => lowered(box.parentElement.querySelector("[data-ata-does]").textContent));
        places.push(element("li", `${listed(does)} ${group.dataset.ataWhere}`.trim()));
      }
    }
    if (!places.length) return [element("p", "Nothing is ticked yet.")];
    const list = element("ul", "");
    list.append(...places);
    return [element("p", "It may only:"), list, element("p", expiry())];
  };

  const limited = () => form.elements.limit.value === "only";

  const counted = () => {
    for (const details of grants.querySelectorAll("details")) {
      const ticked = details.querySelectorAll("input:checked").length;
      details.querySelector("[data-ata-count]").textContent = ticked ? `${ticked} ticked` : "";
    }
  };

  const update = () => {
    number.hidden = unit.value === "" || unit.value === "keep";
    if (grants) {
      grants.hidden = !limited();
      // What is hidden must not be sent.
      grants.disabled = grants.hidden;
      counted();
    }
    summary.replaceChildren(...abilities());
    summary.hidden = false;
  };

  form.addEventListener("change", update);
  number.addEventListener("input", update);
  // The browser restores what was typed before the page was left, after this script has run.
  window.addEventListener("pageshow", update);
  update();

  for (const find of form.querySelectorAll("[data-ata-find]")) {
    const wanted = find.querySelector("input");
    find.hidden = false;
    wanted.addEventListener("input", () => {
      for (const table of find.parentElement.querySelectorAll("[data-ata-table]")) {
        table.hidden = !table.dataset.ataTable.toLowerCase().includes(wanted.value.trim().toLowerCase());
      }
    });
    wanted.addEventListener("keydown", (event) => {
      // Enter would send the whole form.
      if (event.key === "Enter") event.preventDefault();
    });
  }
})();
