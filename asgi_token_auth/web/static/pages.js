// Only adds: without it every page works.
(() => {
  for (const time of document.querySelectorAll(".ata time")) {
    const local = new Date(time.dateTime);
    if (!Number.isNaN(local.getTime())) {
      time.title = `${local.toLocaleString()} (${time.dateTime})`;
    }
  }

  const copy = document.querySelector("[data-ata-copy]");
  const token = document.querySelector(".ata-token");
  if (copy && token) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      token.select();
      try {
        await navigator.clipboard.writeText(token.value);
        copy.textContent = "Copied";
      } catch {
        copy.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl-C";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
  }

  const form = document.querySelector(".ata-form");
  const summary = document.querySelector("[data-ata-summary]");
  if (form && summary) {
    const only = form.querySelector("input[name=limit][value=only]");
    const count = (event) => {
      const ticked = form.querySelectorAll("input[type=checkbox]:checked").length;
      if (event && event.target.type === "checkbox" && event.target.checked) {
        only.checked = true;
      }
      summary.textContent = ticked ? `(${ticked} chosen)` : "";
    };
    form.addEventListener("change", count);
    count();
  }

  const unit = document.querySelector("select[name=expire_type]");
  const number = document.querySelector("input[name=expire_duration]");
  if (unit && number) {
    const show = () => { number.parentElement.style.visibility = unit.value === "" || unit.value === "keep" ? "hidden" : ""; };
    unit.addEventListener("change", show);
    show();
  }
})();
