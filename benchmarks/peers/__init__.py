"""What others do, written plainly with their own libraries: to be measured beside ours and to be equalled by it."""
