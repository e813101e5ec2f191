// Shows what the application behind the site answers.
async function showClock() {
  const clock = document.getElementById("clock");
  try {
    const response = await fetch("/api/clock");
    clock.textContent = response.ok ? (await response.json()).time : `status ${response.status}`;
  } catch (error) {
    clock.textContent = String(error);
  }
}

showClock();
